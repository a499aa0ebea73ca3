-- Shared objects as values of messages: they arrive as what they are, wherever they stand, and are
-- freed when nobody holds them any more.

local commons = require "support.commons"
local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local it = commons.apart(it)

local function identity(...) return ... end

local function make(count) return require "tidemill".array("double", count or 3):fill(5) end

local function describe_way(way)
  describe("a shared object and a pool by " .. way, function()
    if way ~= "spawn" then leaks.watch(after_each, assert) end -- it has a second supervisor
    commons.watch(after_each, assert)

    local function with(processes_or_options, f)
      local options = type(processes_or_options) == "table" and processes_or_options
        or { processes = processes_or_options }
      if way == "inherit" then options.inherit = true else options.start_method = way end
      return tidemill.with(options, f)
    end

    it("arrives as itself, as argument, result, upvalue, in tables and as a key", function()
      local array, value = tidemill.array("double", { 1, 2, 3 }), tidemill.value("int", 7)
      with(2, function(pool)
        assert.is_true(rawequal(array, pool:apply(identity, { array })))
        assert.is_true(rawequal(value, (pool:apply(function() return value end))))
        local back = pool:apply(identity, { { a = { array, array }, v = value, [array] = "key" } })
        assert.is_true(rawequal(array, back.a[1]) and rawequal(array, back.a[2]))
        assert.is_true(rawequal(value, back.v))
        assert.equal("key", back[array])
        assert.is_true(pool:apply(function(a, t) return rawequal(a, t[1]) and t[a] end,
          { array, { array, [array] = true } }))
        local list = pool:map(function(i) return { i, array } end, common.numbers(500), 20)
        for i = 1, 500 do assert.is_true(list[i][1] == i and rawequal(list[i][2], array)) end
      end)
    end)

    it("may be made before the pool or after it, and is global", function()
      _G.early = tidemill.value("int", 1)
      with(2, function(pool)
        _G.late = tidemill.value("int", 2)
        if way ~= "inherit" then -- it has what globals there were when it was made
          local sum = pool:apply(function()
            return early:get() + late:get() -- luacheck: globals early late
          end)
          assert.equal(3, sum)
        end
        assert.equal(1, pool:apply(function(v) return v:get() end, { _G.early }))
      end)
      _G.early, _G.late = nil, nil
    end)

    it("is made in a worker, and outlives it", function()
      local arrays
      with({ processes = 2, maxtasksperchild = 3 }, function(pool)
        arrays = pool:map(function(i)
          local array = require "tidemill".array("int", 100)
          return array:fill(i)
        end, common.numbers(50), 1)
      end)
      for i = 1, 50 do assert.equal(i, arrays[i][100]) end
    end)

    it("is the value of an error", function()
      with(1, function(pool)
        local err = common.raised("task", pool.apply, pool, function()
          error({ array = require "tidemill".array("int", { 1, 2, 3 }) })
        end)
        assert.same({ 1, 2, 3 }, err.value.array:totable())
      end)
    end)

    it("is given to initializers, replacements too", function()
      local array = tidemill.array("double", { 4, 5 })
      local function keep(a) _G.given = a end
      local options = { processes = 1, initializer = keep, initargs = { array } }
      with(options, function(pool)
        array = nil -- luacheck: ignore
        commons.collect()
        for _ = 1, 3 do
          assert.equal(5, pool:apply(function() return _G.given[2] end))
          common.raised("worker", pool.apply, pool, function() os.exit(3) end)
        end
      end)
    end)

    it("reaches nested pools, and comes back from them", function()
      local counter = tidemill.value "double"
      with(2, function(pool)
        local arrays = pool:map(function(i)
          local nested = require "tidemill"
          return nested.with(2, function(inner)
            inner:each(function() counter:add(1) end, nested.range(1, 100))
            return inner:apply(function() return require "tidemill".array("int", 10):fill(i) end)
          end)
        end, { 1, 2, 3 }, 1)
        for i = 1, 3 do assert.equal(i, arrays[i][10]) end
        assert.equal(300, counter:get())
      end)
    end)

    it("is freed when the last handle is gone, though workers idle", function()
      with(2, function(pool)
        local before = commons.count()
        pool:map(make, { 1e5, 1e5, 1e5, 1e5 }, 1)
        local big = tidemill.array("double", 1e6):fill(1)
        pool:each(function(i) big[i] = i end, common.numbers(100))
        pool:map(identity, { big, big, big }, 1)
        big = nil -- luacheck: ignore
        assert.is_truthy(commons.falls_to(0, before + 2 ^ 20))
        common.assert_alive(pool)
      end)
    end)

    it("is let go by a worker that was killed", function()
      local array = tidemill.array("double", 10)
      with(2, function(pool)
        for _ = 1, 5 do
          common.raised("worker", pool.apply, pool, function(a)
            local kept = { a, require "tidemill".array("double", 1e5):fill(1) }
            local ffi = require "ffi"
            pcall(ffi.cdef, "int raise(int);")
            ffi.C.raise(9)
            return kept
          end, { array })
        end
        assert.is_truthy(commons.falls_to(1))
        array = nil -- luacheck: ignore
        assert.is_truthy(commons.falls_to(0))
      end)
    end)

    it("survives in the results of a worker that died after it", function()
      with(1, function(pool)
        local results = pool:map(function(i)
          if i == 40 then os.exit(1) end
          return require "tidemill".array("int", 100):fill(i)
        end, common.numbers(60), { chunksize = 60, errors = "collect" })
        for i = 1, 60 do
          if i == 40 then
            assert.equal("worker", results[i].kind)
          else
            assert.equal(i, results[i][100])
          end
        end
      end)
    end)

    it("is freed with results that nobody takes", function()
      with(2, function(pool)
        local result = pool:map_async(make, common.numbers(300), 1)
        assert.is_truthy(processes.eventually(10, function()
          return (select(2, commons.count())) > 5
        end))
        result:cancel()
        local stream = pool:imap(make, common.numbers(300), { chunksize = 1 })
        stream:next()
        stream:close()
        result, stream = nil, nil -- luacheck: ignore
        common.assert_alive(pool)
        assert.is_truthy(commons.falls_to(0, nil, pool))
      end)
    end)

    it("is freed when its pool is terminated", function()
      local pool = tidemill.pool(way == "inherit" and { processes = 2, inherit = true }
        or { processes = 2, start_method = way })
      local array = tidemill.array("double", 1000)
      for _ = 1, 20 do
        pool:submit(function(a)
          local mine = require "tidemill".array("double", 1000)
          while true do mine[1] = a[1] end
        end, array)
      end
      assert.is_truthy(processes.eventually(10, function()
        return select(2, commons.count()) >= 3
      end))
      pool:terminate()
    end)

    it("does not pile up in a stream", function()
      local most = 0
      with(2, function(pool)
        local function item(i) return require "tidemill".array("double", 2 ^ 17):fill(i) end
        for i, array in pool:imap(item, tidemill.range(1, 600), { chunksize = 1, buffer = 8 }) do
          assert.equal(i, array[1])
          if i % 20 == 0 then most = math.max(most, (commons.count())) end
        end
      end)
      assert.is_true(most < 400 * 2 ^ 20, tostring(most)) -- of 600 MiB
    end)
  end)
end

describe_way "fork"
describe_way "inherit"

describe("a shared object", function()
  leaks.watch(after_each, assert)
  commons.watch(after_each, assert)

  it("cannot be encoded to be kept", function()
    local array = tidemill.array("double", 3)
    local err = common.raised("encode", tidemill.encode, { deep = { array } })
    assert.matches("field deep%[1%]: a shared object", err.message)
    assert.same({ 0, 0, 0 }, array:totable())
  end)

  it("is made and dropped thousands of times in little memory", function()
    local before = commons.count()
    tidemill.with(2, function(pool)
      for round = 1, 20 do
        local values = {}
        for i = 1, 500 do values[i] = tidemill.value("double", i) end
        local sums = pool:map(function(v) return v:add(1) end, values)
        for i = 1, 500 do assert.equal(i + 1, sums[i], round) end
      end
    end)
    assert.is_truthy(commons.falls_to(0, before + 16 * 2 ^ 20))
  end)

  it("leaves nothing when its script is killed", function()
    local run = shell.start [[
      local array = tidemill.array("double", 1e6):fill(1)
      for _ = 1, 2 do
        pool:submit(function(a)
          local mine = require "tidemill".array("double", 1e5)
          while true do mine[1] = a[1] end
        end, array)
      end
      while select(2, require "tidemill.core".commons()) < 3 do pool:poll(0.01) end
      mark()
      while true do end
    ]]
    local names = io.popen("ls /dev/shm | wc -l"):read "*n"
    processes.kill(run.pid, 9)
    assert.is_truthy(processes.eventually(10, function()
      return not processes.is_group_alive(run.pid)
    end))
    assert.equal(names, io.popen("ls /dev/shm | wc -l"):read "*n")
    shell.finish(run)
  end)

  it("in a global of a worker is held until that is killed", function()
    local pool = tidemill.pool(1)
    local array = tidemill.array("double", 1000)
    local pid = pool:apply(function(a)
      _G.kept = { a, require "tidemill".array("int", 10) }
      return require "tidemill".worker().pid
    end, { array })
    assert.equal(2, select(2, commons.count()))
    processes.kill(pid, 9)
    assert.is_truthy(processes.eventually(10, function()
      return pool:apply(function() return require "tidemill".worker().pid end) ~= pid
    end))
    assert.is_truthy(commons.falls_to(1))
    assert.equal(0, array[1000])
    pool:terminate()
  end)
end)

describe_way "spawn" -- last: its supervisor stays
