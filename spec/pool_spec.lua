-- Guarantees of pools that map_spec does not cover: kinds of input, many jobs, many pools, misuse.

local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised

local function identity(x) return x end
local function spin() while true do end end

--- Equal, telling -0 from 0 and taking NaN for itself.
local function assert_exact(expected, value, what)
  if expected ~= expected then
    assert.is_true(value ~= value, what)
  else
    assert.same(expected, value, what)
    if expected == 0 then assert.equal(1 / expected, 1 / value, what) end
  end
end

describe("tidemill.pool", function()
  leaks.watch(after_each, assert)

  describe("items", function()
    local edge = { 0, -0.0, 1 / 0, -1 / 0, 0 / 0, 2 ^ 53, 2 ^ 53 + 2, -2 ^ 63, 2 ^ 64, 5e-324, 0.1,
      1.7976931348623157e308, -2 ^ 31, 2 ^ 32 }

    it("arrive exactly, whatever the workers and chunks", function()
      local function negate(x) return -x end
      for _, workers in ipairs { 1, 2, 8 } do
        tidemill.with(workers, function(pool)
          for _, chunk in ipairs { 1, 7, 1000 } do
            local results = pool:map(negate, edge, chunk)
            for i, x in ipairs(edge) do assert_exact(-x, results[i], ("item %d"):format(i)) end
          end
        end)
      end
    end)

    it("cross the bounds of segments and columns", function()
      tidemill.with(2, function(pool)
        for _, count in ipairs { 1, 2, 63, 64, 65, 127, 255, 256, 257, 511, 512, 513, 1025 } do
          local words = {}
          for i = 1, count do words[i] = ("%d."):format(i) end
          for _, chunk in ipairs { 1, 7, 64, 1000 } do
            assert.same(numbers(count), pool:map(identity, numbers(count), chunk))
            assert.same(numbers(count), pool:map(identity, tidemill.range(1, count), chunk))
            assert.same(words, pool:map(identity, words, chunk))
          end
        end
      end)
    end)

    it("may change their type anywhere", function()
      local items = {}
      for i = 1, 1200 do
        local kind = math.floor(i / 90) % 5
        items[i] = kind == 0 and i or kind == 1 and "s" .. i or kind == 2 and i % 2 == 0
          or kind == 3 and { i } or -i / 3
      end
      for _, workers in ipairs { 1, 2, 8 } do
        tidemill.with(workers, function(pool)
          for _, chunk in ipairs { 1, 7, 1000 } do
            assert.same(items, pool:map(identity, items, chunk))
          end
        end)
      end
    end)

    it("may be larger than a segment, alone and together", function()
      local items = {}
      for i = 1, 40 do items[i] = (string.char(i)):rep(100 * 1024 + i) end
      items[20] = ("large"):rep(1024 * 1024)
      tidemill.with(2, function(pool)
        for _, chunk in ipairs { 1, 7, 1000 } do
          local results = pool:map(function(text) return text .. "!" end, items, chunk)
          for i = 1, 40 do assert.is_true(results[i] == items[i] .. "!") end
        end
      end)
    end)

    it("may be few and results large", function()
      tidemill.with(2, function(pool)
        local results = pool:map(function(n) return ("x"):rep(n) end, { 1, 3e6, 0, 2e7, 5 }, 5)
        for i, n in ipairs { 1, 3e6, 0, 2e7, 5 } do assert.equal(n, #results[i]) end
      end)
    end)

    it("may be false, and functions", function()
      tidemill.with(2, function(pool)
        assert.same({ true, false, true }, pool:map(function(x) return not x end,
          { false, true, false }))
        local calls = { function() return 1 end, math.floor, function() return 3 end }
        assert.same({ 1, 7, 3 }, pool:map(function(f) return f(7.5) end, calls))
      end)
    end)

    it("come out of a range as a for loop counts", function()
      tidemill.with(2, function(pool)
        for _, bounds in ipairs { { 1, 10 }, { 10, 1, -1 }, { 0, 1, 0.1 }, { 1, 0 }, { 5, 5 },
          { -3, 3, 2 }, { 0.5, 4 }, { 1, 2, 5 }, { -1, -10, -4 }, { 1, 1000, 0.25 } } do
          local expected = {}
          for i = bounds[1], bounds[2], bounds[3] or 1 do expected[#expected + 1] = i end
          for _, chunk in ipairs { 1, 7, 1000 } do
            local results = pool:map(identity, tidemill.range(unpack(bounds)), chunk)
            assert.equal(#expected, #results)
            for i, x in ipairs(expected) do
              assert.is_true(math.abs(x - results[i]) < 1e-9)
            end
          end
        end
      end)
    end)

    it("are pulled from an iterator until its first nil", function()
      tidemill.with(2, function(pool)
        local calls = 0
        local results = pool:map(identity, function()
          calls = calls + 1
          if calls <= 600 then return calls, "ignored" end
        end, 7)
        assert.equal(601, calls)
        assert.same(numbers(600), results)
        assert.same({}, pool:map(identity, function() end))
        assert.same({ 3 }, pool:starmap(math.max, coroutine.wrap(function()
          coroutine.yield { 1, 3, 2 }
        end)))
      end)
    end)

    it("may be none, in every method", function()
      tidemill.with(1, function(pool)
        assert.same({}, pool:map(identity, {}, 1))
        assert.same({}, pool:starmap(identity, {}))
        assert.same({}, pool:starmap(identity, tidemill.range(1, 0)))
        local result = pool:map_async(identity, {}, { chunksize = 1, errors = "collect" })
        assert.is_true(result:wait(5))
        assert.is_true(result:ready())
        assert.is_true(result:successful())
        assert.same({}, result:get())
        assert.same({}, pool:starmap_async(identity, {}):get())
      end)
    end)

    it("give holes for nil, at the ends too", function()
      tidemill.with(2, function(pool)
        local function odd(x) if x % 2 == 1 then return x end end
        for _, chunk in ipairs { 1, 7, 1000 } do
          local results = pool:map(odd, numbers(400), chunk)
          for i = 1, 401 do assert.equal(i <= 400 and odd(i) or nil, results[i]) end
        end
        assert.same({}, pool:map(function() end, numbers(300)))
        assert.same({ nil, nil, true }, pool:map(function(x) if x > 2 then return true end end,
          { 1, 2, 3 }))
      end)
    end)
  end)

  describe("many jobs", function()
    it("run side by side and are taken in any order", function()
      tidemill.with(2, function(pool)
        local results = {}
        for i = 1, 60 do
          results[i] = {
            pool:map_async(function(x) return x + i end, numbers(50), 3),
            pool:starmap_async(function(a, b) return a .. b end, { { i, "a" }, { i, "b" } }),
            pool:submit(function(...) return i, ... end, nil, "x", nil),
            pool:apply_async(function() error { code = i } end),
          }
        end
        for i = 60, 1, -1 do
          local mapped, star, call, failed = unpack(results[i])
          local code = raised("task", failed.get, failed).value.code
          local a, b, c, d = call:get()
          assert.same({ i, nil, "x", nil }, { a, b, c, d })
          assert.same({ i .. "a", i .. "b" }, star:get())
          assert.equal(50 + i, mapped:get()[50])
          assert.equal(i, code)
        end
      end)
    end)

    it("do not wait for one that is endless", function()
      local pool = tidemill.pool(2)
      local endless = pool:submit(spin)
      assert.same(numbers(2000), pool:map(identity, numbers(2000), 1))
      assert.equal(7, pool:apply(identity, { 7 }))
      assert.is_false(endless:wait(0))
      pool:terminate()
      raised("terminated", endless.get, endless)
    end)

    it("may be more than there are slots", function()
      tidemill.with(2, function(pool)
        local results = {}
        for i = 1, 20000 do results[i] = pool:submit(identity, i) end
        for i = 1, 20000 do assert.equal(i, results[i]:get()) end
      end)
    end)

    it("of which one fails leave the others alone", function()
      tidemill.with(2, function(pool)
        local good = pool:map_async(identity, numbers(3000), 1)
        local function fail(x) if x == 1500 then error "no" end end
        local bad = pool:map_async(fail, numbers(3000), 1)
        assert.equal(1500, raised("task", bad.get, bad).index)
        assert.same(numbers(3000), good:get())
      end)
    end)

    it("stop handing out items at the first error", function()
      local log = os.tmpname()
      tidemill.with(1, function(pool)
        raised("task", pool.map, pool, function(x)
          if x == 3 then error "stop" end
          local file = io.open(log, "a")
          file:write(x, "\n")
          file:close()
        end, numbers(100000), 1)
      end)
      local lines = 0
      for _ in io.lines(log) do lines = lines + 1 end
      os.remove(log)
      assert.is_true(lines < 100000 - 1)
    end)

    it("carry errors of a megabyte each", function()
      tidemill.with(2, function(pool)
        local results = pool:map(function() error(("e"):rep(1024 * 1024), 0) end, numbers(8),
          { errors = "collect", chunksize = 1 })
        for i = 1, 8 do assert.equal(1024 * 1024, #results[i].message) end
      end)
    end)
  end)

  describe("result", function()
    it("waits no longer than it is told", function()
      local pool = tidemill.pool(1)
      local result = pool:submit(spin)
      for _, timeout in ipairs { 0, -1, 0.01, 0.05 } do
        local before = processes.clock()
        assert.is_false(result:wait(timeout))
        local waited = processes.clock() - before
        assert.is_true(waited >= timeout and waited < timeout + 2, waited)
      end
      raised("timeout", result.get, result, 0)
      pool:terminate()
      assert.is_true(result:wait())
      assert.is_true(result:ready())
    end)

    it("outlives its pool", function()
      local done, failed
      do
        local pool = tidemill.pool(1)
        done = pool:submit(identity, "kept")
        failed = pool:submit(error, "also kept")
        pool:close()
        pool:join()
      end
      collectgarbage()
      collectgarbage()
      assert.equal("kept", done:get())
      assert.equal("also kept", raised("task", failed.get, failed).value)
    end)

    it("keeps its pool alive as long as it is waited for", function()
      local result = tidemill.pool(1):map_async(identity, numbers(5000), 1)
      collectgarbage()
      collectgarbage()
      assert.same(numbers(5000), result:get())
    end)

    it("may be asked again, for values and for errors", function()
      tidemill.with(1, function(pool)
        local values = pool:submit(function() return 1, nil, 3 end)
        local failed = pool:submit(error, { 1 })
        for _ = 1, 3 do
          assert.equal(3, select("#", values:get()))
          assert.same({ true, 1, nil, 3 }, { values:try() })
          local ok, err = failed:try()
          assert.is_false(ok)
          assert.equal(err, raised("task", failed.get, failed))
        end
      end)
    end)
  end)

  describe("with", function()
    it("returns all values, nils too", function()
      local function count(...) return select("#", ...), ... end
      local function work() return nil, 2, nil end
      assert.same({ 3, nil, 2, nil }, { count(tidemill.with(1, work)) })
      assert.equal(0, (count(tidemill.with(1, function() end))))
    end)

    it("waits for what is outstanding, failed work too", function()
      local good, bad
      tidemill.with(2, function(pool)
        bad = pool:submit(error, "bad")
        good = pool:map_async(identity, numbers(5000), 1)
      end)
      assert.is_true(good:ready())
      assert.is_true(bad:ready())
      assert.is_false(bad:successful())
    end)

    it("raises the same value, whatever its type", function()
      local object = setmetatable({}, { __tostring = error })
      for _, value in ipairs { "text", 7, object, false } do
        local ok, err = pcall(tidemill.with, 1, function() error(value, 0) end)
        assert.is_false(ok)
        assert.is_true(rawequal(value, err))
      end
      local ok, err = pcall(tidemill.with, 1, function() error() end)
      assert.is_false(ok)
      assert.is_nil(err)
    end)

    it("survives a pool that was closed, joined or terminated inside", function()
      tidemill.with(1, function(pool) pool:close() end)
      tidemill.with(1, function(pool) pool:terminate() end)
      tidemill.with(1, function(pool)
        pool:close()
        pool:join()
      end)
    end)

    it("makes the default pool when only given a function", function()
      assert.is_true(tidemill.with(function(pool) return #pool:workers() end) >= 1)
    end)
  end)

  describe("pools", function()
    it("live side by side, many at once", function()
      local pools, results = {}, {}
      for i = 1, 20 do pools[i] = tidemill.pool(2) end
      for i, pool in ipairs(pools) do
        results[i] = pool:map_async(function(x) return x * i end, numbers(100), 1)
      end
      for i = 20, 1, -1 do assert.equal(100 * i, results[i]:get()[100]) end
      for i, pool in ipairs(pools) do
        if i % 3 == 0 then pool:terminate() else pool:close() end
      end
      for _, pool in ipairs(pools) do assert.is_true(pool:join()) end
    end)

    it("come and go hundreds of times", function()
      for i = 1, 300 do
        tidemill.with(2, function(pool) assert.equal(i, pool:apply(identity, { i })) end)
      end
    end)

    it("dropped at any moment leave nothing", function()
      for i = 1, 30 do
        local pool = tidemill.pool(1 + i % 3)
        if i % 2 == 0 then pool:map_async(spin, numbers(10), 1) end
        if i % 5 == 0 then pool:close() end
      end
    end)

    it("end a terminate with ten thousand long tasks at once", function()
      local pool = tidemill.pool(2)
      local results = {}
      for i = 1, 10000 do results[i] = pool:submit(spin) end
      local before = processes.clock()
      pool:terminate()
      assert.is_true(pool:join(5))
      assert.is_true(processes.clock() - before < 1)
      for i = 1, 10000 do assert.equal("terminated", select(2, results[i]:try(0)).kind) end
    end)

    it("refuse work of every kind when closed or terminated", function()
      for _, ending in ipairs { "close", "terminate" } do
        local pool = tidemill.pool(1)
        pool[ending](pool)
        for _, method in ipairs { "map", "starmap", "map_async", "starmap_async" } do
          raised("closed", pool[method], pool, identity, {})
        end
        for _, method in ipairs { "apply", "apply_async", "submit" } do
          raised("closed", pool[method], pool, identity)
        end
        pool[ending](pool)
        assert.is_true(pool:join())
        assert.is_true(pool:join(0))
      end
    end)

    it("join in time with nothing to do, and late with an endless job", function()
      local pool = tidemill.pool(2)
      pool:close()
      assert.is_true(pool:join(5))
      pool = tidemill.pool(2)
      local result = pool:submit(spin)
      pool:close()
      for _ = 1, 3 do assert.is_false(pool:join(0.01)) end
      pool:terminate()
      assert.is_true(pool:join(5))
      raised("terminated", result.get, result)
    end)

    it("nest, each worker with its own", function()
      tidemill.with(2, function(pool)
        local sums = pool:map(function(n)
          local inner = require "tidemill"
          return inner.with(2, function(nested)
            local sum = 0
            for _, x in ipairs(nested:map(function(x) return x * n end, inner.range(1, 100), 7)) do
              sum = sum + x
            end
            return sum
          end)
        end, { 1, 2, 3, 4 }, 1)
        assert.same({ 5050, 10100, 15150, 20200 }, sums)
      end)
    end)

    it("nested and abandoned die with their worker", function()
      local pool = tidemill.pool(1)
      local pids = { pool:apply(function()
        abandoned = require "tidemill".pool(2) -- luacheck: ignore
        abandoned:submit(function() while true do end end) -- luacheck: ignore
        return unpack(abandoned:workers()) -- luacheck: ignore
      end) }
      assert.equal(2, #pids)
      pool:terminate()
      for _, pid in ipairs(pids) do
        assert.is_truthy(processes.eventually(5, function() return not processes.is_alive(pid) end))
      end
    end)

    it("know their workers and what they did", function()
      tidemill.with({ processes = 3, name = "mill" }, function(pool)
        local pids = {}
        for _, pid in ipairs(pool:workers()) do pids[pid] = true end
        local where = pool:map(function()
          local worker = require "tidemill".worker()
          return { worker.id, worker.pid, worker.pool }
        end, numbers(90), 1)
        for _, place in ipairs(where) do
          assert.is_true(place[1] >= 1 and place[1] <= 3)
          assert.is_true(pids[place[2]])
          assert.equal("mill", place[3])
        end
        local items = 0
        for i, worker in ipairs(pool:stats()) do
          assert.equal(0, worker.restarts)
          assert.equal(pool:workers()[i], worker.pid)
          assert.is_true(worker.busy >= 0 and worker.chunks <= worker.items)
          items = items + worker.items
        end
        assert.equal(90, items)
        assert.is_truthy(tostring(pool):find("mill", 1, true))
      end)
      assert.is_nil(tidemill.worker())
    end)
  end)

  describe("options", function()
    it("pass initargs on, nils too", function()
      local options = {
        processes = 2, initargs = { nil, { 1, 2 }, nil, n = 3 },
        initializer = function(...) given = { select("#", ...), ... } end, -- luacheck: ignore
      }
      tidemill.with(options, function(pool)
        local results = pool:map(function()
          return { given[1], given[3][2] } -- luacheck: ignore
        end, numbers(10), 1)
        for i = 1, 10 do assert.same({ 3, 2 }, results[i]) end
      end)
    end)

    it("seed workers apart", function()
      tidemill.with(4, function(pool)
        local seen, distinct = {}, 0
        local draws = pool:map(function() return math.random() end, numbers(400), 1)
        for _, x in ipairs(draws) do
          if not seen[x] then distinct = distinct + 1 end
          seen[x] = true
        end
        assert.is_true(distinct > 390)
      end)
    end)

    it("report an initializer that dies by a signal or exits", function()
      for _, workers in ipairs { 1, 4 } do
        local err = raised("broken", tidemill.pool, {
          processes = workers,
          initializer = function() require "ffi".cast("int *", 8)[0] = 1 end,
        })
        assert.is_truthy(err.message:find("signal 11", 1, true))
        err = raised("broken", tidemill.pool, {
          processes = workers, initializer = function() os.exit(0) end,
        })
        assert.is_truthy(err.message:find("exit code 0", 1, true))
      end
    end)

    it("report an initializer that raises any value", function()
      for _, value in ipairs { { code = 5 }, "text", 12, true } do
        local err = raised("init", tidemill.pool, {
          processes = 3, initializer = error, initargs = { value, 0 },
        })
        assert.same(value, err.value)
      end
    end)

    it("quote what an initializer raises in a replacement", function()
      local flag = os.tmpname()
      os.remove(flag)
      local pool = tidemill.pool { processes = 2, initargs = { flag }, initializer = function(path)
        if io.open(path) then error "no second time" end
      end }
      io.open(flag, "w"):close()
      local result = pool:apply_async(os.exit, { 1 }, { retries = 100 })
      local err = raised("broken", result.get, result, 30)
      assert.is_truthy(err.message:find "worker %d cannot start: .*no second time")
      err = raised("broken", pool.map, pool, identity, { 1 })
      assert.is_truthy(err.message:find "worker %d cannot start: .*no second time")
      os.remove(flag)
    end)

    it("refuse an initializer that cannot travel", function()
      local thread = coroutine.create(identity)
      local err = raised("encode", tidemill.pool, { initializer = function() return thread end })
      assert.is_truthy(err.message:find("thread", 1, true))
      raised("encode", tidemill.pool, { initializer = identity, initargs = { io.stdout } })
    end)

    it("preload modules in every worker", function()
      tidemill.with({ processes = 2, preload = { "lpeg", "support.processes" } }, function(pool)
        local results = pool:map(function()
          return package.loaded.lpeg ~= nil and package.loaded["support.processes"] ~= nil
        end, numbers(8), 1)
        for i = 1, 8 do assert.is_true(results[i]) end
      end)
    end)

    it("set the chunk size for all calls", function()
      tidemill.with({ processes = 1, chunksize = 10 }, function(pool)
        pool:map(identity, numbers(100))
        assert.equal(10, pool:stats()[1].chunks)
        pool:map(identity, numbers(100), 50)
        assert.equal(12, pool:stats()[1].chunks)
        pool:map(identity, numbers(100), { chunksize = 25 })
        assert.equal(16, pool:stats()[1].chunks)
      end)
    end)
  end)

  describe("misuse", function()
    -- Each is raised where the caller stands, as text that names the function and the argument.
    local function refused(pattern, f)
      local ok, err = pcall(f)
      assert.is_false(ok)
      assert.is_string(err)
      local line = debug.getinfo(f, "S").linedefined
      assert.is_truthy(err:find(("pool_spec.lua:%d: "):format(line), 1, true), err)
      assert.is_truthy(err:find(pattern), err)
    end

    it("of constructors is an error", function()
      refused("tidemill.pool: .*processes", function() tidemill.pool(0) end)
      refused("tidemill.pool: .*processes", function() tidemill.pool { processes = 2.5 } end)
      refused("tidemill.pool: .*processes", function() tidemill.pool { processes = "3" } end)
      refused("tidemill.pool: .*options", function() tidemill.pool "4" end)
      refused("tidemill.pool: .*'proceses'", function() tidemill.pool { proceses = 1 } end)
      refused("tidemill.pool: .*initargs", function() tidemill.pool { initargs = 1 } end)
      refused("tidemill.pool: .*preload%[2%]", function() tidemill.pool { preload = { "", 2 } } end)
      refused("tidemill.pool: .*preload", function() tidemill.pool { preload = "lpeg" } end)
      refused("tidemill.with: fn", function() tidemill.with(2) end)
      refused("tidemill.with: .*processes", function() tidemill.with(-1, print) end)
      refused("range: step", function() tidemill.range(1, 2, 0) end)
      refused("range: last", function() tidemill.range(1, 1 / 0) end)
      refused("range: first", function() tidemill.range(0 / 0, 1) end)
      refused("range: last", function() tidemill.range(1, "2") end)
    end)

    it("of pools is an error", function()
      tidemill.with(1, function(pool)
        refused("pool:map: f: ", function() pool:map(nil, {}) end)
        refused("pool:apply: f: ", function() pool:apply({}, {}) end)
        refused("pool:submit: f: ", function() pool:submit() end)
        refused("pool:map: items", function() pool:map(identity, "abc") end)
        refused("pool:starmap: items", function() pool:starmap(identity, 3) end)
        refused("pool:map_async: items", function() pool:map_async(identity) end)
        refused("pool:apply_async: args", function() pool:apply_async(identity, "x") end)
        refused("pool:map: .*chunksize", function() pool:map(identity, {}, -1) end)
        refused("pool:map: .*chunksize", function() pool:map(identity, {}, 1.5) end)
        refused("pool:map: .*chunksize", function() pool:map(identity, {}, { chunksize = "1" }) end)
        refused("pool:map: .*options", function() pool:map(identity, {}, true) end)
        refused("pool:starmap: .*'chunk'", function() pool:starmap(identity, {}, { chunk = 1 }) end)
        refused("pool:map: errors", function() pool:map(identity, {}, { errors = "ignore" }) end)
        refused("pool:map: .*colon", function() pool.map(identity, {}) end)
        refused("pool:close: .*colon", function() pool.close() end)
        refused("pool:workers: .*colon", function() pool.workers {} end)
        refused("pool:join: timeout", function() pool:join "5" end)
        refused("pool:join: close", function() pool:join() end)
        assert.equal(1, pool:apply(identity, { 1 }))
      end)
    end)

    it("of results is an error", function()
      tidemill.with(1, function(pool)
        local result = pool:submit(identity, 1)
        refused("result:get: .*colon", function() result.get() end)
        refused("result:get: timeout", function() result:get "1" end)
        refused("result:wait: timeout", function() result:wait {} end)
        refused("result:try: timeout", function() result:try(0 / 0) end)
      end)
      local pool = tidemill.pool(1)
      local endless = pool:submit(spin)
      refused("result:successful", function() endless:successful() end)
      pool:terminate()
    end)
  end)
end)
