-- One number that every process sees.

local commons = require "support.commons"
local common = require "support.common"
local ffi = require "ffi"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local it = commons.apart(it)

local NUMBERS = { "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t",
  "uint64_t", "float", "double" }

describe("tidemill.value", function()
  leaks.watch(after_each, assert)
  commons.watch(after_each, assert)

  it("is zero, or what it is made with", function()
    for _, name in ipairs(NUMBERS) do
      assert.is_true(tidemill.value(name):get() == 0, name)
      assert.is_true(tidemill.value(name, 43):get() == 43, name)
    end
    assert.is_false(tidemill.value("bool"):get())
    assert.is_true(tidemill.value("bool", true):get())
    assert.equal(7, tidemill.value(ffi.typeof "int", 7):get())
  end)

  it("shows a task what the script wrote, and the script what a task wrote", function()
    tidemill.with(2, function(pool)
      for _, name in ipairs(NUMBERS) do
        local value = tidemill.value(name, 43)
        local seen = pool:apply(function(v)
          local was = v:get()
          v:set(21)
          return was
        end, { value })
        assert.is_true(seen == 43 and value:get() == 21, name)
      end
    end)
  end)

  it("adds atomically in many processes, whatever the type", function()
    local each = { int8_t = 3, uint8_t = 3, int16_t = 1000, uint16_t = 1000 }
    tidemill.with(8, function(pool)
      for _, name in ipairs(NUMBERS) do
        local value, times = tidemill.value(name), each[name] or 20000
        pool:each(function()
          for _ = 1, times do value:add(1) end
        end, tidemill.range(1, 8), { chunksize = 1 })
        assert.is_true(value:get() == 8 * times, name .. ": " .. tostring(value:get()))
      end
    end)
  end)

  it("returns the new value from add", function()
    local whole, float = tidemill.value("int32_t", 5), tidemill.value("double", 0.5)
    assert.equal(8, whole:add(3))
    assert.equal(-2, whole:add(-10))
    assert.equal(2, float:add(1.5))
    assert.equal(2, float:get())
  end)

  it("compares and sets atomically", function()
    local value = tidemill.value("int32_t", 5)
    assert.is_true(value:cas(5, 6))
    assert.is_false(value:cas(5, 7))
    assert.equal(6, value:get())
    local tickets = tidemill.value "double"
    tidemill.with(4, function(pool)
      local taken = pool:map(function()
        while true do
          local seen = tickets:get()
          if tickets:cas(seen, seen + 1) then return seen end
        end
      end, common.numbers(400), 5)
      table.sort(taken)
      for i = 1, 400 do assert.equal(i - 1, taken[i]) end
    end)
  end)

  it("is a struct that has a name, declared in the worker too", function()
    pcall(ffi.cdef, "struct spec_point { int x; double y; };")
    local value = tidemill.value("struct spec_point", { 1, 2.5 })
    local function declare() require "ffi".cdef "struct spec_point { int x; double y; };" end
    tidemill.with({ processes = 2, initializer = declare }, function(pool)
      pool:apply(function(v)
        local point = v:get()
        v:set { point.x * 2, point.y * 2 }
        point.x = 100 -- a copy
      end, { value })
      assert.equal(2, value:get().x)
      assert.equal(5, value:get().y)
    end)
    tidemill.with(1, function(pool)
      local err = common.raised("decode", pool.apply, pool, function() end, { value })
      assert.matches("'struct spec_point', which is not declared here", err.message)
    end)
  end)

  it("runs a function under its lock, in one process at a time", function()
    local value, inside = tidemill.value "double", tidemill.value "int"
    tidemill.with(4, function(pool)
      local most = pool:map(function()
        return (value:with(function(v)
          local count = inside:add(1)
          v:set(v:get() + 1)
          inside:add(-1)
          return count
        end))
      end, tidemill.range(1, 2000), 10)
      for i = 1, 2000 do assert.equal(1, most[i]) end
      assert.equal(2000, value:get())
    end)
  end)

  it("gives its lock back when the function raises", function()
    local value = tidemill.value "int"
    local ok, err = pcall(value.with, value, function() error({ "mine" }) end)
    assert.is_false(ok)
    assert.same({ "mine" }, err)
    assert.equal("a", value:with(function() return "a" end))
  end)

  it("can be locked again by who has the lock, and unlocked as often", function()
    local value = tidemill.value "int"
    assert.is_true(value:lock())
    assert.is_true(value:lock(0))
    value:unlock()
    tidemill.with(1, function(pool)
      assert.is_false(pool:apply(function(v) return (v:lock(0.05)) end, { value }))
      value:unlock()
      assert.is_true(pool:apply(function(v)
        local taken = v:lock(5)
        v:unlock()
        return taken
      end, { value }))
    end)
    local ok, err = pcall(value.unlock, value)
    assert.is_false(ok)
    assert.matches("this process does not have the lock", err)
  end)

  it("takes the lock of a holder that was killed, and says so", function()
    local value, held = tidemill.value "int", tidemill.value "int"
    tidemill.with(1, function(pool)
      local result = pool:submit(function(v, h)
        v:lock()
        h:set(require "tidemill".worker().pid)
        while true do end
      end, value, held)
      assert.is_truthy(processes.eventually(10, function()
        pool:poll(0)
        return held:get() ~= 0
      end))
      assert.is_false((value:lock(0.01)))
      processes.kill(held:get(), 9)
      local taken, note = value:lock(10)
      assert.is_true(taken)
      assert.equal("abandoned", note)
      value:unlock()
      assert.equal("worker", select(2, result:try()).kind)
      taken, note = value:lock(1)
      assert.is_true(taken)
      assert.is_nil(note)
      value:unlock()
    end)
  end)

  it("refuses what it cannot be", function()
    local function raises(pattern, ...)
      local ok, err = pcall(function(...) return (tidemill.value(...)) end, ...)
      assert.is_false(ok)
      assert.matches(pattern, tostring(err))
      assert.matches("value_spec", tostring(err))
    end
    raises("tidemill.value: ctype must be the name of a C type, got nil")
    raises("tidemill.value: ctype must be the name of a C type, got 5", 5)
    raises("tidemill.value: .*nonsense", "nonsense")
    raises("tidemill.value: .*cannot be shared", "char *")
    raises("tidemill.value: .*cannot be shared", ffi.typeof "struct { int x; }")
    raises("tidemill.value: .*cannot be shared", "void")
    raises("tidemill.value: .*cannot be shared", "int[4]")
  end)
end)
