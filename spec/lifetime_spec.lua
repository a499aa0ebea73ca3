-- How much a worker may hold and how long it lives: memory_limit, max_rss, maxtasksperchild.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers = common.numbers

local function identity(x) return x end

local function own_pid() return require "tidemill".worker().pid end

local function count_by_value(list)
  local counts, distinct = {}, 0
  for _, value in ipairs(list) do
    if not counts[value] then distinct = distinct + 1 end
    counts[value] = (counts[value] or 0) + 1
  end
  return counts, distinct
end

--- Fill the Lua heap: `megabytes` of strings, or of tables.
local function hoard(megabytes, kind)
  local kept = {}
  for i = 1, megabytes do
    if kind == "tables" then
      local row = {}
      for k = 1, 65536 do row[k] = k end -- 16 bytes each, and a megabyte while it grows
      kept[i] = row
    else
      kept[i] = ("%d"):format(i):rep(2 ^ 20)
    end
  end
  return #kept
end

describe("memory_limit", function()
  leaks.watch(after_each, assert)

  it("fails the task that goes beyond it, and the worker lives", function()
    tidemill.with({ processes = 1, memory_limit = 32e6 }, function(pool)
      local pid = pool:workers()[1]
      for _ = 1, 3 do
        for _, kind in ipairs { "tables", "strings" } do
          local ok, err = pcall(pool.apply, pool, hoard, { 200, kind })
          assert.is_false(ok)
          assert.equal("task", err.kind, tostring(err))
          assert.is_truthy(err.message:find("not enough memory", 1, true), err.message)
          assert.same(numbers(300), pool:map(identity, numbers(300), 7))
        end
      end
      assert.equal(pid, pool:workers()[1])
      assert.equal(0, pool:stats()[1].restarts)
    end)
  end)

  it("says whose it was that was reached", function()
    tidemill.with({ processes = 1, memory_limit = 32e6 }, function(pool)
      local ok, err = pcall(pool.map, pool, hoard, { 1, 200 })
      assert.is_false(ok)
      assert.equal(2, err.index)
      assert.equal(200, err.item)
      assert.equal(pool:workers()[1], err.pid)
      assert.equal(1, err.worker)
      assert.equal(1, err.attempts)
    end)
  end)

  it("leaves what stays below it alone, however much it adds up to", function()
    tidemill.with({ processes = 1, memory_limit = 64e6 }, function(pool)
      for _ = 1, 20 do assert.equal(8, pool:apply(hoard, { 8, "strings" })) end
      local results = pool:map(function(x) return hoard(x, "tables") end, { 8, 8, 8, 8, 8, 8 }, 6)
      assert.same({ 8, 8, 8, 8, 8, 8 }, results)
    end)
  end)

  it("fails its item only, in a chunk", function()
    tidemill.with({ processes = 2, memory_limit = 32e6 }, function(pool)
      local pids = pool:workers()
      for _, chunk in ipairs { 1, 10, 100 } do
        local results = pool:map(function(x)
          if x == 7 then return hoard(200, "tables") end
          return x
        end, numbers(20), { chunksize = chunk, errors = "collect" })
        for i = 1, 20 do
          if i == 7 then
            assert.equal("task", results[i].kind)
            assert.equal(7, results[i].index)
          else
            assert.equal(i, results[i])
          end
        end
      end
      assert.same(pids, pool:workers())
    end)
  end)

  it("is seen by a task as Lua's own error, which it may catch", function()
    tidemill.with({ processes = 1, memory_limit = 32e6 }, function(pool)
      local caught = { pool:apply(function()
        local ok, message = pcall(hoard, 200, "strings")
        return ok, message, hoard(4, "strings")
      end) }
      assert.same({ false, "not enough memory", 4 }, caught)
    end)
  end)

  it("holds for arguments and results too", function()
    tidemill.with({ processes = 1, memory_limit = 32e6 }, function(pool)
      local pid = pool:workers()[1]
      local large = {}
      for i = 1, 100 do large[i] = ("%d"):format(i):rep(2 ^ 20) end
      local ok, err = pcall(pool.apply, pool, identity, { large })
      assert.is_false(ok)
      assert.is_true(tidemill.is_error(err))
      assert.not_equal("worker", err.kind)
      assert.equal(pid, pool:workers()[1])
      assert.equal(1, pool:apply(identity, { 1 }))
    end)
  end)

  it("holds in workers that replace others", function()
    tidemill.with({ processes = 1, memory_limit = 32e6 }, function(pool)
      pool:submit(os.exit, 1):wait()
      local ok, err = pcall(pool.apply, pool, hoard, { 200, "tables" })
      assert.is_false(ok)
      assert.equal("task", err.kind)
    end)
  end)
end)

describe("max_rss", function()
  leaks.watch(after_each, assert)

  --- Touch memory outside of the Lua heap, and keep it.
  local function grow(bytes)
    local ffi = require "ffi"
    kept = kept or {} -- luacheck: ignore
    local block = ffi.new("char[?]", bytes)
    ffi.fill(block, bytes, 1)
    kept[#kept + 1] = block -- luacheck: ignore
    return require "tidemill".worker().pid
  end

  it("replaces a worker above it between items, and loses none", function()
    tidemill.with({ processes = 1, max_rss = 48e6 }, function(pool)
      local pids = {}
      assert.is_truthy(processes.eventually(60, function()
        pids[#pids + 1] = pool:apply(grow, { 8e6 })
        return pids[#pids] ~= pids[1]
      end), "the worker was never replaced")
      for _ = 1, 3 do
        local results = pool:map(function(x)
          grow(8e6)
          return x
        end, numbers(30), 10)
        assert.same(numbers(30), results)
      end
    end)
  end)

  it("leaves workers below it alone", function()
    tidemill.with({ processes = 2, max_rss = 256e6 }, function(pool)
      local pids = pool:workers()
      for _ = 1, 5 do pool:map(identity, numbers(1000), 10) end
      assert.same(pids, pool:workers())
    end)
  end)

  it("counts what a worker holds itself, not what it shares with a large script", function()
    -- The module is loaded late, so that its workers are copies of a large process.
    local out, err = shell.run(("LUA_CPATH='%s/?.so;;' luajit SCRIPT"):format(shell.build), [[
      local large = {}
      for i = 1, 100 do large[i] = ("%d"):format(i):rep(2 ^ 20) end
      local tidemill = require "tidemill"
      tidemill.with({ processes = 1, max_rss = 64e6 }, function(pool)
        local function own_pid() return require "tidemill".worker().pid end
        local first = pool:apply(own_pid)
        for _ = 1, 10 do print(pool:apply(own_pid) == first) end
      end)
      assert(#large == 100)]])
    assert.equal("", err)
    assert.equal(("true\n"):rep(10), out)
  end)

  it("runs the initializer again in the new worker", function()
    local options = { processes = 1, max_rss = 32e6, initializer = function()
      BASE = 7 -- luacheck: ignore
    end }
    tidemill.with(options, function(pool)
      local function work()
        grow(8e6)
        return BASE -- luacheck: ignore
      end
      for _ = 1, 20 do assert.equal(7, pool:apply(work)) end
    end)
  end)
end)

describe("maxtasksperchild", function()
  leaks.watch(after_each, assert)

  it("counts items exactly, whatever the chunks", function()
    for _, case in ipairs { { 5, 7 }, { 5, 1 }, { 1, 100 }, { 7, 7 }, { 10, 3 } } do
      local most, chunk = unpack(case)
      tidemill.with({ processes = 2, maxtasksperchild = most }, function(pool)
        for _ = 1, 2 do
          local pids = pool:map(own_pid, numbers(70), chunk)
          for pid, count in pairs((count_by_value(pids))) do
            assert.is_number(pid)
            assert.is_true(count <= most, ("%d items in chunks of %d"):format(count, chunk))
          end
        end
        local results = pool:map(function(x) return { x } end, numbers(70), chunk)
        for i = 1, 70 do assert.same({ i }, results[i]) end
      end)
    end
  end)

  it("counts over jobs: one worker runs exactly so many", function()
    tidemill.with({ processes = 1, maxtasksperchild = 3 }, function(pool)
      local pids = {}
      for i = 1, 12 do pids[i] = pool:apply(own_pid) end
      for i = 1, 12 do
        assert.equal(i % 3 ~= 1, pids[i] == pids[i - 1], ("call %d"):format(i))
      end
      local counts = count_by_value(pool:map(own_pid, numbers(30), 10))
      for _, count in pairs(counts) do assert.equal(3, count) end
    end)
  end)

  it("gives right answers while workers come and go", function()
    tidemill.with({ processes = 3, maxtasksperchild = 10 }, function(pool)
      local first = pool:workers()
      local results = {}
      for i = 1, 100 do results[i] = pool:submit("x -> x * x", i) end
      for i = 1, 100 do assert.equal(i * i, results[i]:get()) end
      pool:map(identity, numbers(100), 1)
      assert.is_truthy(processes.eventually(30, function() return #pool:workers() == 3 end))
      local old = count_by_value(first)
      local kept = 0
      for _, pid in ipairs(pool:workers()) do kept = kept + (old[pid] and 1 or 0) end
      assert.equal(0, kept)
      local restarts = pool:stats().restarts
      assert.is_true(restarts >= 17, restarts)
    end)
  end)

  it("does not count for the streams' order, nor in folds", function()
    tidemill.with({ processes = 2, maxtasksperchild = 4 }, function(pool)
      local place = 0
      for i, value in pool:imap(identity, tidemill.range(1, 100), 7) do
        place = place + 1
        assert.same({ place, place }, { i, value })
      end
      assert.equal(100, place)
      assert.equal(5050, pool:mapreduce(identity, "a, b -> a + b", tidemill.range(1, 100), nil, 9))
      assert.equal(100, pool:each(identity, numbers(100), 9))
    end)
  end)

  it("lets an early close finish all that was given", function()
    for _ = 1, 5 do
      local pool = tidemill.pool { processes = 3, maxtasksperchild = 1 }
      local results = {}
      for i = 1, 6 do
        results[i] = pool:submit(function(n)
          files.nap(0.02)
          return n
        end, i)
      end
      local mapped = pool:map_async(identity, numbers(40), 5)
      pool:close()
      assert.is_true(pool:join(60))
      for i = 1, 6 do assert.equal(i, results[i]:get(0)) end
      assert.same(numbers(40), mapped:get(0))
    end
  end)

  it("runs the initializer in every worker", function()
    local options = { processes = 2, maxtasksperchild = 2, initargs = { 40 },
      initializer = function(base) BASE = base end } -- luacheck: ignore
    tidemill.with(options, function(pool)
      local results = pool:map(function(x) return BASE + x end, numbers(40), 5) -- luacheck: ignore
      for i = 1, 40 do assert.equal(40 + i, results[i]) end
    end)
  end)

  it("counts items that raise, and goes on after those that kill", function()
    tidemill.with({ processes = 1, maxtasksperchild = 4 }, function(pool)
      local results = pool:map(function(x)
        if x % 6 == 0 then os.exit(1) end
        if x % 3 == 0 then error(require "tidemill".worker().pid, 0) end
        return require "tidemill".worker().pid
      end, numbers(60), { chunksize = 9, errors = "collect" })
      local pids = {}
      for i = 1, 60 do
        local result = results[i]
        if i % 6 == 0 then
          assert.equal("worker", result.kind)
          pids[#pids + 1] = result.pid
        elseif i % 3 == 0 then
          assert.equal("task", result.kind)
          pids[#pids + 1] = result.value
        else
          pids[#pids + 1] = result
        end
      end
      for _, count in pairs((count_by_value(pids))) do assert.is_true(count <= 4) end
    end)
  end)

  it("leaves nobody out when all are replaced after each item", function()
    tidemill.with({ processes = 4, maxtasksperchild = 1 }, function(pool)
      local _, distinct = count_by_value(pool:map(own_pid, numbers(200)))
      assert.equal(200, distinct)
    end)
  end)

  it("refuses what is no positive whole number, as the limits of memory do", function()
    for _, name in ipairs { "maxtasksperchild", "memory_limit", "max_rss" } do
      for _, value in ipairs { 0, -1, 0.5, "12", true, 0 / 0 } do
        local ok, err = pcall(tidemill.pool, { [name] = value })
        assert.is_false(ok)
        assert.is_string(err)
        assert.is_truthy(err:find(name, 1, true), err)
      end
    end
  end)
end)

describe("the workers", function()
  leaks.watch(after_each, assert)

  it("are as many as were wanted, however much waits for them", function()
    tidemill.with(3, function(pool)
      local gate, results = files.gate(), {}
      for i = 1, 45 do results[i] = pool:submit(files.pass, gate) end
      for _ = 1, 10 do
        assert.equal(3, #pool:workers())
        assert.is_false(results[45]:wait(0.005))
      end
      files.open(gate)
      for i = 1, 45 do results[i]:get() end
      assert.equal(3, #pool:workers())
    end)
  end)

  it("are the same from one call to the next, unless told otherwise", function()
    tidemill.with(2, function(pool)
      local pids = pool:workers()
      for _ = 1, 50 do
        pool:apply(identity, { 1 })
        pool:map(identity, numbers(100), 3)
        pcall(pool.apply, pool, error)
      end
      assert.same(pids, pool:workers())
    end)
  end)

  it("outlives a hook that turns to the pool which is sending the function", function()
    for _, act in ipairs { "terminate", "apply", "map" } do
      local pool = tidemill.pool(1)
      local told
      local value = setmetatable({}, { __tidemill = { encode = function()
        told = select(2, pcall(pool[act], pool, math.abs, { 1 }))
      end } })
      pcall(pool.apply, pool, function() return value end) -- a hook with a pool does not travel
      assert.is_truthy(told:find("its hook cannot use it", 1, true))
      assert.equal(7, pool:apply(math.abs, { -7 }))
      pool:close()
      assert.is_true(pool:join(30))
    end
  end)

  it("joins after a callback, or who watches the progress, has ended a call", function()
    for _, method in ipairs { "map", "each", "mapreduce" } do
      for _, way in ipairs { "callback", "progress" } do
        local pool, n = tidemill.pool(1), 0
        local function boom() error "boom" end
        if way == "callback" then pool:apply_async(math.abs, { 1 }, { callback = boom }) end
        local options = { progress = way == "progress" and boom or nil }
        local function endless()
          n = n + 1
          return n
        end
        local arguments = { math.abs, endless, options }
        if method == "mapreduce" then arguments = { math.abs, math.max, endless, 0, options } end
        local ok, err = pcall(pool[method], pool, unpack(arguments, 1, 5))
        assert.is_false(ok)
        assert.is_truthy(tostring(err):find("boom", 1, true))
        pool:close()
        assert.is_true(pool:join(30), method .. " " .. way)
      end
    end
  end)
end)
