local common = require "support.common"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised

local function identity(x) return x end

describe("tidemill.pool", function()
  leaks.watch(after_each, assert)

  describe("map", function()
    it("gives the same answer for any number of workers and any chunk size", function()
      local items = numbers(1000)
      local expected = {}
      for i = 1, 1000 do expected[i] = i * i + 0.5 end
      for _, workers in ipairs { 1, 2, 8 } do
        tidemill.with(workers, function(pool)
          for _, chunk in ipairs { 1, 7, 256, 1000, 5000 } do
            assert.same(expected, pool:map(function(x) return x * x + 0.5 end, items, chunk))
          end
          assert.same(expected, pool:map(function(x) return x * x + 0.5 end, items))
        end)
      end
    end)

    it("carries every kind of value across segments and chunk sizes", function()
      local items = {}
      for i = 1, 700 do items[i] = i % 3 == 0 and { i, { text = "t" .. i } } or "text" .. i end
      tidemill.with(2, function(pool)
        for _, chunk in ipairs { 1, 2, 63, 64, 300 } do
          assert.same(items, pool:map(identity, items, chunk))
        end
      end)
    end)

    it("keeps numbers exact in columns", function()
      local items = { 0, -0.0, 1 / 0, -1 / 0, 2 ^ 53, 2 ^ 53 + 2, -2 ^ 60, 1e-310, 0.1 }
      for i = #items + 1, 200 do items[i] = i / 3 end
      tidemill.with(2, function(pool)
        local back = pool:map(identity, items, 100)
        assert.same(items, back)
        assert.equal(-1 / 0, 1 / back[2])
        local nan = pool:map(function() return 0 / 0 end, numbers(100), 50)
        for i = 1, 100 do assert.is_true(nan[i] ~= nan[i]) end
      end)
    end)

    it("follows results that change their type in the middle", function()
      local function changing(x)
        if x <= 100 then return x end
        if x <= 200 then return "text" .. x end
        if x <= 300 then return x % 2 == 0 end
        if x <= 400 then return nil end
        return { x }
      end
      tidemill.with(2, function(pool)
        for _, items in ipairs { numbers(500), tidemill.range(1, 500) } do
          local results = pool:map(changing, items, 500)
          for i = 1, 500 do assert.same(changing(i), results[i]) end
        end
      end)
    end)

    it("returns the first value of each, a nil as a hole", function()
      tidemill.with(2, function(pool)
        assert.same({ 1, nil, 3 }, pool:map(function(x)
          if x ~= 2 then return x, "more" end
        end, { 1, 2, 3 }))
      end)
    end)

    it("takes a list with holes that has its length as n", function()
      local function is_nil(x) return x == nil end
      tidemill.with(2, function(pool)
        assert.same({ false, true, false, true }, pool:map(is_nil, { 1, nil, 3, nil, n = 4 }))
        assert.same({ true, true, true }, pool:map(is_nil, { n = 3 }))
        assert.same({}, pool:map(is_nil, { 1, n = 0 }))
        assert.equal(4, pool:each(is_nil, { nil, nil, nil, 4, n = 4 }))
        local seen = {}
        for i, value in pool:imap(is_nil, { 1, nil, n = 2 }) do seen[i] = value end
        assert.same({ false, true }, seen)
        assert.equal(6, pool:mapreduce("x -> x or 2", "a, b -> a + b", { 1, nil, 3, n = 3 }))
      end)
    end)

    it("takes ranges, iterators and nothing", function()
      tidemill.with(2, function(pool)
        assert.same({ 10, 7, 4, 1 }, pool:map(identity, tidemill.range(10, 1, -3)))
        assert.same({ 0.5, 0.75, 1 }, pool:map(identity, tidemill.range(0.5, 1, 0.25)))
        assert.same({}, pool:map(identity, tidemill.range(2, 1)))
        assert.same({}, pool:map(identity, {}))
        assert.same({ "a", "b", "c" }, pool:map(identity, ("a b c"):gmatch "%a"))
        assert.equal(1e6, #pool:map(identity, tidemill.range(1, 1e6)))
      end)
    end)

    it("raises what an iterator raises, and the pool goes on", function()
      tidemill.with(2, function(pool)
        for _, last in ipairs { 0, 3 } do
          local n = 0
          local ok, err = pcall(pool.map, pool, identity, function()
            n = n + 1
            if n > last then error("no more", 0) end
            return n
          end)
          assert.is_false(ok)
          assert.equal("no more", err)
        end
        assert.same({ 1, 2 }, pool:map(identity, { 1, 2 }))
      end)
    end)

    it("stops at an error, and says which item it was", function()
      tidemill.with(2, function(pool)
        local err = raised("task", pool.map, pool, function(x)
          if x == 5 then error { code = 7 } end
          return x
        end, numbers(20), 3)
        assert.equal(5, err.index)
        assert.equal(5, err.item)
        assert.same({ code = 7 }, err.value)
        assert.is_number(err.pid)
        assert.is_truthy(err.traceback:find("map_spec.lua:%d+: in function"))
        assert.same({ 1 }, pool:map(identity, { 1 }))
      end)
    end)

    it("collects errors among the results if asked to", function()
      tidemill.with(2, function(pool)
        for _, chunk in ipairs { 1, 4, 100 } do
          local results = pool:map(function(x)
            if x % 3 == 0 then error("three", 0) end
            return x
          end, numbers(100), { chunksize = chunk, errors = "collect" })
          for i = 1, 100 do
            if i % 3 == 0 then
              assert.equal("task", results[i].kind)
              assert.equal("three", results[i].message)
              assert.equal(i, results[i].index)
            else
              assert.equal(i, results[i])
            end
          end
        end
      end)
    end)
  end)

  describe("starmap", function()
    it("unpacks items by n or length", function()
      tidemill.with(2, function(pool)
        local function count(...) return select("#", ...) end
        local items = { { 1, 2 }, {}, { n = 3 }, { nil, n = 1 } }
        assert.same({ 2, 0, 3, 1 }, pool:starmap(count, items))
        assert.same({ 3, 7 }, pool:starmap("a, b -> a + b", { { 1, 2 }, { 3, 4 } }, 20))
      end)
    end)

    it("refuses an item that is no table, by its number", function()
      tidemill.with(2, function(pool)
        local err = raised("encode", pool.starmap, pool, identity, { { 1 }, 2 })
        assert.equal(2, err.index)
      end)
    end)
  end)

  describe("apply", function()
    it("returns all values, nils too", function()
      tidemill.with(2, function(pool)
        local function pack(...) return { n = select("#", ...), ... } end
        assert.same({ n = 3, 1, nil, nil }, pack(pool:apply(function() return 1, nil, nil end)))
        assert.same({ n = 0 }, pack(pool:apply(function() end)))
        assert.same({ n = 4, 1, nil, 3, nil },
          pack(pool:apply(function(...) return ... end, { 1, nil, 3, nil, n = 4 })))
      end)
    end)
  end)

  describe("asynchronous calls", function()
    it("give results in any order of asking, and again", function()
      tidemill.with(3, function(pool)
        local results = {}
        for i = 1, 6000 do results[i] = pool:apply_async(identity, { i }) end
        for i = 6000, 1, -1 do assert.equal(i, results[i]:get()) end
        assert.equal(17, results[17]:get())
      end)
    end)

    it("encode their items at the call", function()
      tidemill.with(2, function(pool)
        local items = {}
        for i = 1, 3000 do items[i] = { i } end
        local result = pool:map_async(function(item) return item[1] end, items, 1)
        for i = 1, 3000 do items[i][1] = -1 end
        assert.same(numbers(3000), result:get())
      end)
    end)

    it("time out without losing the reply", function()
      tidemill.with(1, function(pool)
        local gate = os.tmpname()
        local result = pool:submit(function(path)
          while io.open(path) do end -- until the spec removes it
          return "late"
        end, gate)
        raised("timeout", result.get, result, 0.02)
        local ok, err = result:try(0)
        assert.is_false(ok)
        assert.equal("timeout", err.kind)
        assert.is_false(result:ready())
        assert.has_error(function() result:successful() end)
        os.remove(gate)
        assert.equal("late", result:get())
        assert.is_true(result:successful())
      end)
    end)

    it("fail where they are asked, not where they were started", function()
      tidemill.with(2, function(pool)
        local result = pool:submit(function() error("late news", 0) end)
        assert.is_true(result:wait())
        assert.is_false(result:successful())
        assert.equal("late news", raised("task", result.get, result).message)
        local unsendable = pool:submit(identity, coroutine.create(identity))
        raised("encode", unsendable.get, unsendable)
      end)
    end)
  end)

  describe("its life", function()
    it("ends with close and join, after the work is done", function()
      local pool = tidemill.pool(2)
      local result = pool:map_async(identity, numbers(5000), 1)
      pool:close()
      assert.is_true(pool:join())
      assert.same(numbers(5000), result:get())
      assert.same({}, pool:workers())
      raised("closed", pool.map, pool, identity, { 1 })
    end)

    it("ends at once with terminate, whatever is outstanding", function()
      local pool = tidemill.pool(3)
      local result = pool:map_async(function() while true do end end, numbers(10000), 1)
      pool:terminate()
      raised("terminated", result.get, result)
      raised("closed", pool.submit, pool, identity)
      assert.is_true(pool:join())
      pool:terminate()
    end)

    it("gives up a join in time", function()
      local pool = tidemill.pool(1)
      pool:submit(function() while true do end end)
      assert.has_error(function() pool:join() end)
      pool:close()
      assert.is_false(pool:join(0.02))
      pool:terminate()
    end)

    it("may end by being dropped, with work under way", function()
      local pool = tidemill.pool(2)
      pool:map_async(function() while true do end end, { 1, 2, 3 })
    end)

    it("is joined by with, terminated if it raises", function()
      local kept
      assert.equal("value", tidemill.with(2, function(pool)
        kept = pool:map_async(identity, numbers(100))
        return "value"
      end))
      assert.same(numbers(100), kept:get())
      local value = {}
      local ok, err = pcall(tidemill.with, 2, function(pool)
        pool:submit(function() while true do end end)
        error(value)
      end)
      assert.is_false(ok)
      assert.equal(value, err)
    end)

    it("goes beside other pools, and inside a worker", function()
      tidemill.with(2, function(one)
        tidemill.with(3, function(two)
          local a = one:map_async(identity, numbers(1000), 1)
          local b = two:map_async(identity, numbers(1000), 1)
          assert.same(numbers(1000), b:get())
          assert.same(numbers(1000), a:get())
        end)
        local function nested(n)
          local inner = require "tidemill"
          return inner.with(function(pool)
            return pool.processes, #pool:map(function(x) return x end, inner.range(1, n))
          end)
        end
        assert.same({ 1, 50 }, { one:apply(nested, { 50 }) })
      end)
    end)

    it("can have two hundred workers", function()
      tidemill.with(200, function(pool)
        assert.equal(200, #pool:workers())
        local sum = 0
        for _, square in ipairs(pool:map(function(x) return x * x end, numbers(1000), 1)) do
          sum = sum + square
        end
        assert.equal(333833500, sum)
      end)
    end)
  end)

  describe("options", function()
    it("run the initializer in every worker, replacements too", function()
      local options = { processes = 2, initializer = function(a, b)
        BASE = a + b -- luacheck: ignore
      end, initargs = { 40, 2 } }
      tidemill.with(options, function(pool)
        for _ = 1, 3 do
          local results = pool:map(function(x)
            if x == 5 then os.exit(1) end
            return BASE + x -- luacheck: ignore
          end, numbers(20), { errors = "collect", chunksize = 2 })
          for i = 1, 20 do
            if i ~= 5 then assert.equal(42 + i, results[i]) end
          end
        end
      end)
    end)

    it("raise from the constructor what the initializer raises, or its end", function()
      local err = raised("init", tidemill.pool, { initializer = function() error "not today" end })
      assert.matches("^worker %d cannot start: .*not today", err.message)
      assert.matches("in the worker: .*map_spec.lua", tostring(err))
      assert.is_number(err.worker)
      err = raised("broken", tidemill.pool, { initializer = function() os.exit(9) end })
      assert.is_truthy(err.message:find("exit code 9", 1, true))
      err = raised("init", tidemill.pool, { preload = { "no.such.module" } })
      assert.is_truthy(err.message:find("no.such.module", 1, true))
    end)

    it("are checked, naming the argument where the caller stands", function()
      local function message(f, ...)
        local ok, err = pcall(f, ...)
        assert.is_false(ok)
        assert.is_string(err)
        return err
      end
      for _, bad in ipairs { 0, -1, 1.5, "2", { processes = 0 }, { workers = 2 }, { name = 1 },
        { initializer = 1 }, { chunksize = 0 }, { preload = { 1 } }, 100000 } do
        assert.is_truthy(message(tidemill.pool, bad):find("tidemill.pool: ", 1, true))
      end
      tidemill.with(1, function(pool)
        assert.is_truthy(message(function() pool:map(identity) end)
          :find("map_spec.lua:%d+: pool:map: items must be"))
        assert.is_truthy(message(function() pool:map(nil, {}) end)
          :find("map_spec.lua:%d+: pool:map: f: it must be"))
        assert.is_truthy(message(function() pool:map(identity, {}, 0) end)
          :find("map_spec.lua:%d+: pool:map: chunksize must be"))
        assert.is_truthy(message(function() pool:map(identity, {}, { chunk = 1 }) end)
          :find("map_spec.lua:%d+: pool:map: unknown option 'chunk'"))
        assert.is_truthy(message(function() pool.map(identity, {}) end)
          :find("map_spec.lua:%d+: pool:map: call it with a colon"))
        assert.is_truthy(message(function() pool:apply(identity, 1) end)
          :find("map_spec.lua:%d+: pool:apply: args must be"))
      end)
    end)
  end)

  it("grows neither in the script nor in the workers over a million tasks", function()
    local processes = require "support.processes"
    tidemill.with(2, function(pool)
      local items = {}
      for i = 1, 50000 do items[i] = "item " .. i end
      local function round()
        pool:map(function(text) return #text end, items, 4)
        pool:map(identity, items, 50)
      end
      local function resident()
        collectgarbage()
        local sum = processes.resident "self"
        for _, pid in ipairs(pool:workers()) do sum = sum + processes.resident(pid) end
        return sum
      end
      for _ = 1, 3 do round() end
      local before = resident()
      for _ = 1, 10 do round() end
      assert.is_true(resident() - before < 4096, "more than 4 MB were added")
    end)
  end)

  it("takes a long list as a short one: its metatable has no say", function()
    tidemill.with(1, function(pool)
      for _, count in ipairs { 10, 100 } do
        local items = setmetatable(numbers(count), { __index = function() return 0 end })
        items[count - 1] = nil
        assert.equal("nil", pool:map(function(x) return tostring(x) end, items)[count - 1])
      end
    end)
  end)

  it("says that a call has too many arguments", function()
    tidemill.with(1, function(pool)
      for _, n in ipairs { 9000, 2 ^ 31 - 1, 1e300 } do
        local err = raised("encode", pool.apply, pool, identity, { n = n })
        assert.is_truthy(err.message:find("too many arguments", 1, true))
      end
    end)
  end)

  it("runs the function as it is now", function()
    tidemill.with(1, function(pool)
      local number = 0
      local function inverse() return 1 / number end
      for _ = 1, 3 do assert.equal(math.huge, pool:apply(inverse)) end
      number = -number
      assert.equal(-math.huge, pool:apply(inverse))

      local read = loadstring "return some_name"
      for _ = 1, 3 do assert.is_nil(pool:apply(read)) end
      setfenv(read, { some_name = 2 })
      assert.equal(2, pool:apply(read))
    end)
  end)
end)
