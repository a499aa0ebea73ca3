-- memory_limit, wherever the memory is taken: an error that a job may catch, a worker that lives,
-- and nothing left of it for the next item.

local common = require "support.common"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local LIMIT = 8e6

local assert_alive = common.assert_alive

--- Ways to take memory without end: in few large pieces and in many small ones, interpreted and
--- compiled, inside of Lua, of its libraries and of the collector's blind spots.
local ways = {
  ["a string that doubles"] = function()
    local s = "x"
    while true do s = s .. s end
  end,
  ["an array"] = function()
    local t = { 1 }
    while #t > 0 do t[#t + 1] = 1 end
  end,
  ["small tables"] = function()
    local t
    while true do t = { t and t[1], t } end
  end,
  ["closures"] = function()
    local f
    while true do
      local g = f
      f = function() return g end
    end
  end,
  ["coroutines"] = function()
    local t = {}
    while true do t[#t + 1] = coroutine.create(print) end
  end,
  ["memory of the FFI"] = function()
    local ffi, t = require "ffi", {}
    while true do t[#t + 1] = ffi.new("char[?]", 1e5) end
  end,
  ["a buffer"] = function()
    local b = require "string.buffer".new()
    while true do b:put(("x"):rep(1e5)) end
  end,
  ["table.concat"] = function()
    local t = {}
    for i = 1, 1000 do t[i] = "" end
    return #table.concat(t, ("y"):rep(1e5))
  end,
  ["gsub"] = function() return #("x"):rep(1e5):gsub("x", ("y"):rep(1000)) end,
  ["functions"] = function()
    local t, text = {}, "return " .. ("x+"):rep(5000) .. "1"
    while true do t[#t + 1] = assert(loadstring(text)) end
  end,
}

local function with_limit(f)
  tidemill.with({ processes = 1, memory_limit = LIMIT }, function(pool)
    local pid = pool:workers()[1]
    f(pool)
    assert.equal(pid, pool:workers()[1])
    assert.equal(0, pool:stats().restarts)
  end)
end

local function assert_refused(ok, err)
  assert.is_false(ok)
  assert.equal("task", err.kind)
  assert.is_truthy(err.message:find("not enough memory", 1, true), err.message)
end

describe("memory_limit", function()
  leaks.watch(after_each, assert)

  for what, way in pairs(ways) do
    it("is an error to be caught where it is reached by " .. what, function()
      with_limit(function(pool)
        local function catch()
          local _, message = pcall(way)
          return "caught: " .. tostring(message) -- which needs memory again
        end
        local function catch_inside()
          return "caught: " .. tostring(select(2, coroutine.resume(coroutine.create(way))))
        end
        for _ = 1, 2 do
          for _, f in ipairs { catch, catch_inside } do
            local caught = pool:apply(f)
            assert.is_truthy(caught:find("^caught: .*not enough memory"), caught)
          end
          assert_refused(pool:submit(way):try())
          assert_alive(pool)
        end
      end)
    end)
  end

  it("is not reached by garbage", function()
    with_limit(function(pool)
      assert.equal(100, pool:apply(function()
        local kept, count = ("k"):rep(LIMIT / 4), 0
        for i = 1, 100 do
          local s = ("%d"):format(i):rep(LIMIT / 30) -- with what is made on the way, up to half
          if #s + #kept > 0 then count = count + 1 end
        end
        return count
      end))
    end)
  end)

  it("fails what it keeps from being decoded, and what cannot be encoded", function()
    with_limit(function(pool)
      local text, rows, numbers = ("x"):rep(LIMIT), {}, {}
      for i = 1, 1e5 do rows[i], numbers[i] = { i }, i + 0.5 end
      for i = 1e5, 1e6 do numbers[i] = i + 0.5 end
      for _, value in ipairs { text, rows, numbers } do
        assert_refused(pool:submit(type, value):try())
        assert_refused(pool:submit(function() return type(value) end):try())
        assert_alive(pool)
      end
      local results = pool:map(function(s) return #s end, { text, "x", text, "xx" },
        { errors = "collect", chunksize = 4 })
      assert_refused(false, results[1])
      assert.equal(1, results[2])
      assert_refused(false, results[3])
      assert.equal(2, results[4])
      assert_refused(pool:submit(error, { text, text .. text }):try())
      assert_alive(pool)
    end)
  end)

  it("takes chunks that are larger than it, piece by piece", function()
    with_limit(function(pool)
      local texts = {}
      for i = 1, 60 do texts[i] = ("%d"):format(i % 10):rep(5e5) end
      assert.same({ 5e5, 5e5 }, { unpack(pool:map("s -> #s", texts, 60), 59) })
      local results = pool:map(function(i) return ("%d"):format(i % 10):rep(5e5) end,
        tidemill.range(1, 60), 60)
      for i = 1, 60 do assert.is_true(results[i] == texts[i]) end
    end)
  end)

  it("is of the initializer too", function()
    local ok, err = pcall(tidemill.pool, { processes = 2, memory_limit = LIMIT,
      initializer = ways["small tables"] })
    assert.is_false(ok)
    assert.equal("init", err.kind)
    assert.is_truthy(err.message:find("not enough memory", 1, true), err.message)
  end)
end)
