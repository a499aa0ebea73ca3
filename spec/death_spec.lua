local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers

local command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")

local function identity(x) return x end

--- The workers there are; one that was killed may not have been replaced yet.
local function living(pool)
  return assert(processes.eventually(10, function()
    local workers = pool:workers()
    return #workers > 0 and workers
  end))
end

local function crash()
  local ffi = require "ffi"
  return ffi.cast("int *", 8)[0]
end

local function kill_self()
  local ffi = require "ffi"
  pcall(ffi.cdef, "int kill(int, int); int getpid(void);")
  ffi.C.kill(ffi.C.getpid(), 9)
end

-- Each way to die, and what is said of it.
local deaths = {
  { "os.exit(0)", function() os.exit(0) end, "exitcode", 0 },
  { "os.exit(7)", function() os.exit(7) end, "exitcode", 7 },
  { "os.exit(false)", function() os.exit(false) end, "exitcode", 1 },
  { "a segmentation fault", crash, "signal", processes.SIGSEGV },
  { "SIGKILL", kill_self, "signal", processes.SIGKILL },
}

describe("a worker that dies", function()
  leaks.watch(after_each, assert)

  for _, death in ipairs(deaths) do
    local name, die, field, value = unpack(death)

    it("by " .. name .. " costs the item in its hand, whatever the chunks", function()
      tidemill.with(2, function(pool)
        for _, chunk in ipairs { 1, 5, 100 } do
          local results = pool:map(function(x)
            if x == 33 or x == 66 then die() end
            return x * 2
          end, numbers(100), { chunksize = chunk, errors = "collect" })
          for i = 1, 100 do
            if i == 33 or i == 66 then
              assert.equal("worker", results[i].kind)
              assert.equal(value, results[i][field])
              assert.equal(i, results[i].index)
              assert.equal(i, results[i].item)
              assert.is_number(results[i].pid)
            else
              assert.equal(i * 2, results[i])
            end
          end
        end
        assert.is_true(processes.eventually(5, function() return #pool:workers() == 2 end))
      end)
    end)

    it("by " .. name .. " raises from a map, and the pool goes on", function()
      tidemill.with(2, function(pool)
        local ok, err = pcall(pool.map, pool, function(x)
          if x == 4 then die() end
          return x
        end, numbers(10))
        assert.is_false(ok)
        assert.equal("worker", err.kind)
        assert.equal(4, err.index)
        assert.same(numbers(50), pool:map(identity, numbers(50)))
        local alone = pool:apply_async(die)
        assert.equal("worker", select(2, alone:try()).kind)
        assert.equal("fine", pool:apply(function() return "fine" end))
      end)
    end)
  end

  it("has its finished items delivered and not run again", function()
    local path = os.tmpname()
    tidemill.with(2, function(pool)
      for _, kind in ipairs { "column", "message" } do
        io.open(path, "w"):close()
        local function run(x)
          local log = io.open(path, "a")
          log:write(x, "\n")
          log:close()
          if x % 10 == 5 then os.exit(3) end
          return kind == "column" and x or { x }
        end
        local results = pool:map(run, numbers(60), { chunksize = 20, errors = "collect" })
        local runs = {}
        for line in io.lines(path) do runs[line] = (runs[line] or 0) + 1 end
        for i = 1, 60 do
          assert.equal(1, runs[tostring(i)])
          if i % 10 == 5 then
            assert.equal("worker", results[i].kind)
          else
            assert.same(kind == "column" and i or { i }, results[i])
          end
        end
      end
    end)
    os.remove(path)
  end)

  it("is replaced, however many items kill their workers", function()
    tidemill.with(2, function(pool)
      local results = pool:map(function() os.exit(1) end, numbers(100),
        { chunksize = 10, errors = "collect" })
      for i = 1, 100 do assert.equal("worker", results[i].kind) end
      assert.same(numbers(10), pool:map(identity, numbers(10)))
    end)
  end)

  it("costs nothing when it is idle", function()
    tidemill.with(3, function(pool)
      for round = 1, 30 do
        assert.same(numbers(30), pool:map(identity, numbers(30), 1))
        local workers = living(pool)
        processes.kill(workers[round % #workers + 1], processes.SIGKILL)
      end
      assert.same(numbers(1000), pool:map(identity, numbers(1000), 7))
    end)
  end)

  it("is noticed when killed from outside in the middle of its work", function()
    tidemill.with(2, function(pool)
      for _ = 1, 20 do
        local results = pool:map_async(function(x)
          local sum = 0
          for i = 1, 20000 do sum = sum + i % x end
          return x
        end, numbers(400), { chunksize = 3, errors = "collect" })
        local workers = living(pool)
        processes.kill(workers[1], processes.SIGKILL)
        local lost = 0
        for i, result in ipairs(results:get()) do
          if tidemill.is_error(result) then
            assert.equal("worker", result.kind)
            assert.equal(i, result.index)
            lost = lost + 1
          else
            assert.equal(i, result)
          end
        end
        assert.is_true(lost <= 1)
      end
    end)
  end)

  it("leaves other jobs alone", function()
    tidemill.with(2, function(pool)
      local other = pool:map_async(function(x) return { x } end, numbers(2000), 10)
      for _ = 1, 10 do pool:apply_async(os.exit, { 1 }):wait() end
      local values = other:get()
      for i = 1, 2000 do assert.equal(i, values[i][1]) end
    end)
  end)
end)

describe("what a job raises", function()
  leaks.watch(after_each, assert)

  it("arrives, whatever its type", function()
    tidemill.with(1, function(pool)
      local function raise(value, level)
        local args = { value, level, n = 2 }
        return select(2, pool:apply_async(function(v, l) error(v, l) end, args):try())
      end
      assert.equal("text", raise("text", 0).message)
      assert.equal(42, raise(42, 0).value)
      assert.same({ a = { 1 } }, raise({ a = { 1 } }).value)
      assert.is_nil(raise(nil).value)
      assert.equal("nil", raise(nil).message)
      assert.is_false(raise(false).value)
      for _, value in ipairs { "text", 42, { 1 } } do
        assert.equal("task", raise(value).kind)
        assert.is_string(tostring(raise(value)))
      end
      local odd = select(2, pool:apply_async(function()
        error(setmetatable({}, { __tostring = function() error "no text" end }))
      end):try())
      assert.equal("task", odd.kind)
      odd = select(2, pool:apply_async(function() error(coroutine.create(print)) end):try())
      assert.equal("task", odd.kind)
      assert.is_nil(odd.value)
      local deep = select(2, pool:apply_async(function()
        local function down() return 1 + down() end
        return down()
      end):try())
      assert.equal("task", deep.kind)
      assert.equal("fine", pool:apply(function() return "fine" end))
    end)
  end)

  it("keeps its class and fields", function()
    tidemill.with(1, function(pool)
      local ok, err = pool:apply_async(function()
        local inner = require "tidemill.errors"
        error(inner.new { kind = "task", message = "mine", extra = 7 })
      end):try()
      assert.is_false(ok)
      assert.is_true(tidemill.is_error(err.value))
      assert.equal(7, err.value.extra)
    end)
  end)

  it("may be a megabyte, many times", function()
    tidemill.with(2, function(pool)
      local results = pool:map(function(x) error(("x"):rep(2 ^ 20) .. x, 0) end, numbers(8),
        { errors = "collect" })
      for i = 1, 8 do assert.equal(2 ^ 20 + 1, #results[i].message) end
    end)
  end)

  it("is said when a result cannot travel", function()
    tidemill.with(1, function(pool)
      for _ = 1, 20 do
        local ok, err = pool:apply_async(function()
          return { deep = { 1, { io.stdout } } }
        end):try()
        assert.is_false(ok)
        assert.equal("encode", err.kind)
        assert.is_truthy(err.message:find("field deep[2][1]: userdata", 1, true), err.message)
      end
      assert.equal("fine", pool:apply(function() return "fine" end))
    end)
  end)
end)

describe("the end of the others", function()
  leaks.watch(after_each, assert)

  it("breaks the pool when its supervisor is killed, at once", function()
    local pool = tidemill.pool(2)
    local result = pool:map_async(function() while true do end end, { 1, 2 })
    local workers = pool:workers()
    for _, supervisor in ipairs(processes.children(processes.self())) do
      processes.kill(supervisor, processes.SIGKILL)
    end
    local ok, err = result:try(10)
    assert.is_false(ok)
    assert.equal("broken", err.kind)
    for _, pid in ipairs(workers) do
      assert.is_true(processes.eventually(5, function() return not processes.is_alive(pid) end))
    end
    ok, err = pcall(pool.map, pool, identity, { 1 })
    assert.is_false(ok)
    assert.equal("broken", err.kind)
    pool:terminate()
    -- a new pool starts a new supervisor
    tidemill.with(1, function(fresh) assert.same({ 1 }, fresh:map(identity, { 1 })) end)
    pool = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end)

  it("lets a new supervisor have no memory of pools that were there before", function()
    local broken = tidemill.pool(1)
    local result = broken:submit(function() while true do end end)
    for _, supervisor in ipairs(processes.children(processes.self())) do
      processes.kill(supervisor, processes.SIGKILL)
    end
    assert.equal("broken", select(2, result:try(10)).kind)
    local pool = tidemill.pool(1)
    for _, supervisor in ipairs(processes.children(processes.self())) do
      if processes.is_alive(supervisor) then
        assert.equal(1, (processes.holdings(supervisor)))
      end
    end
    assert.equal(2, (processes.holdings()))
    pool:terminate()
    broken:terminate()
    pool, broken = nil, nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end)

  local endings = {
    SIGKILL = [[ffi.C.kill(ffi.C.getpid(), 9)]],
    ["os.exit"] = [[os.exit(3)]],
    ["an error"] = [[error "end"]],
    ["its last line"] = "",
  }
  for name, ending in pairs(endings) do
    it("leaves no process when the script ends by " .. name .. " with work under way", function()
      local path = os.tmpname()
      local file = io.open(path, "w")
      file:write([[
        local ffi, tidemill = require "ffi", require "tidemill"
        ffi.cdef "int kill(int, int); int getpid(void);"
        local pool = tidemill.pool(3)
        local result = pool:map_async(function() while true do end end, { 1, 2, 3, 4 })
        result:wait(0.01)
        io.write(table.concat(pool:workers(), " "), "\n")
        io.stdout:flush()
      ]], ending)
      file:close()
      local process = io.popen(command .. " " .. path .. " 2>/dev/null")
      local line = process:read "*l"
      process:close()
      os.remove(path)
      local count = 0
      for pid in line:gmatch "%d+" do
        count = count + 1
        assert.is_true(processes.eventually(5, function()
          return not processes.is_alive(tonumber(pid))
        end))
      end
      assert.equal(3, count)
    end)
  end
end)
