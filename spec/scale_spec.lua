-- Many of everything: workers, pools, deaths, tasks. TIDEMILL_SCALE multiplies the counts: 1 is a
-- quick look, 10 and more is to be run by hand.

local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

-- Not of a module, which each new worker would have to load.
local function identity(x) return x end

-- A sanitizer holds back what was freed, and takes its time.
local sanitized = (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true)
local scale = tonumber(os.getenv "TIDEMILL_SCALE") or (sanitized and 0.25 or 1)
local SLACK_KB, PATIENCE_S = sanitized and 65536 or 4096, 120

local function times(count) return math.ceil(count * scale) end

local function supervisor() return processes.children(processes.self())[1] end

--- Resident kilobytes of this process and its supervisor, garbage gone.
local function resident()
  collectgarbage()
  collectgarbage()
  return processes.resident(processes.self()) + processes.resident(supervisor())
end

--- Do a round, and four more: these make no process grow.
local function assert_flat(round)
  round()
  local first = resident()
  for _ = 1, 4 do round() end
  local grown = resident() - first
  assert.is_true(grown < SLACK_KB, ("grew by %d KB"):format(grown))
end

describe("many workers", function()
  leaks.watch(after_each, assert)

  local COUNT = 200

  it("do all that few do", function()
    tidemill.with(COUNT, function(pool)
      local items = times(20000)
      local results = pool:map(identity, tidemill.range(1, items), 1)
      assert.equal(items, #results)
      local place = 0
      for i, value in pool:imap(identity, tidemill.range(1, times(5000)), 1) do
        place = place + 1
        assert.is_true(i == place and value == place)
      end
      assert.equal(times(5000), place)
      local submitted = {}
      for i = 1, times(5000) do submitted[i] = pool:submit(identity, i) end
      for i, result in ipairs(submitted) do assert.equal(i, result:get()) end
      local seen, distinct = {}, 0
      for _, pid in ipairs(pool:broadcast(function() return require "tidemill".worker().pid end)) do
        if not seen[pid] then distinct = distinct + 1 end
        seen[pid] = true
      end
      assert.equal(COUNT, distinct)
    end)
  end)

  it("of which half are killed lose nothing that may be tried again", function()
    tidemill.with(COUNT, function(pool)
      local function work(x)
        local sum = 0
        for i = 1, 2000 do sum = sum + i % x end
        return x, sum
      end
      local result = pool:map_async(work, tidemill.range(1, times(10000)),
        { chunksize = 5, retries = 3 })
      local pids = pool:workers()
      for i = 1, #pids, 2 do processes.kill(pids[i], processes.SIGKILL) end
      local values = result:get(PATIENCE_S)
      for i = 1, times(10000) do assert.equal(i, values[i]) end
      for _, pid in ipairs(pool:workers()) do processes.kill(pid, processes.SIGKILL) end
      common.assert_alive(pool)
      assert.is_truthy(processes.eventually(PATIENCE_S, function()
        return #pool:workers() == COUNT
      end))
    end)
  end)

  it("that must be replaced and are busy at once end when they are told to", function()
    local pool = tidemill.pool(COUNT)
    pool:map(identity, tidemill.range(1, COUNT), 1)
    for _, pid in ipairs(pool:workers()) do processes.kill(pid, processes.SIGKILL) end
    local result = pool:map_async(function() while true do end end, tidemill.range(1, 2 * COUNT), 1)
    result:wait(0.05)
    pool:terminate()
    assert.is_true(pool:join(PATIENCE_S))
    assert.is_false((result:try(0)))
  end)

  it("that are all killed by their items are all replaced", function()
    tidemill.with(COUNT / 4, function(pool)
      local results = pool:map(os.exit, tidemill.range(1, times(500)),
        { errors = "collect", chunksize = 3 })
      for i = 1, times(500) do
        assert.equal("worker", results[i].kind)
        assert.equal(i % 256, results[i].exitcode)
      end
      common.assert_alive(pool)
    end)
  end)
end)

describe("many pools", function()
  leaks.watch(after_each, assert)

  it("may be dropped without being closed", function()
    assert_flat(function()
      for _ = 1, times(30) do tidemill.pool(2):submit(identity, 1) end
    end)
  end)

  it("may be closed and joined", function()
    assert_flat(function()
      for i = 1, times(30) do
        local pool = tidemill.pool(2)
        local result = pool:submit(identity, i)
        pool:close()
        assert.is_true(pool:join(PATIENCE_S))
        assert.equal(i, result:get(0))
      end
    end)
  end)

  it("may be open at once", function()
    local pools, results = {}, {}
    for i = 1, 50 do
      pools[i] = tidemill.pool(2)
      results[i] = pools[i]:map_async(identity, tidemill.range(1, 100), 7)
    end
    assert.equal(50, #tidemill.wait(results, PATIENCE_S))
    for i = 1, 50 do
      assert.equal(100, #results[i]:get())
      assert.same({ i }, pools[i]:map(identity, { i }))
      pools[i]:close()
    end
    for i = 1, 50 do assert.is_true(pools[i]:join(PATIENCE_S)) end
  end)

  it("that fail to start leave no more than others", function()
    assert_flat(function()
      for _ = 1, times(10) do
        local ok, err = pcall(tidemill.pool, { processes = 2, initializer = error })
        assert.is_false(ok)
        assert.equal("init", err.kind)
      end
    end)
  end)
end)

describe("many deaths", function()
  leaks.watch(after_each, assert)

  --- Seconds of processor time that a process has taken.
  local function busy(pid)
    local file = assert(io.open(("/proc/%d/stat"):format(pid)))
    local fields, TICKS = {}, 100
    for field in file:read "*a":match "%)%s(.*)":gmatch "%S+" do fields[#fields + 1] = field end
    file:close()
    return (fields[12] + fields[13]) / TICKS
  end

  local function replaced(options, f, count, errors)
    local before = busy(supervisor())
    tidemill.with(options, function(pool)
      local _, descriptors = processes.holdings(supervisor())
      assert_flat(function()
        pool:map(f, tidemill.range(1, count), { chunksize = 10, errors = errors })
      end)
      assert.is_true(pool:stats().restarts >= 5 * count - #pool:workers() - 1)
      local _, now = processes.holdings(supervisor())
      assert.equal(descriptors, now)
    end)
    local each = (busy(supervisor()) - before) / (5 * count)
    local MOST_S = sanitized and 0.02 or 0.002 -- to fork, reap and settle one
    assert.is_true(each < MOST_S, ("%.4f s for each worker"):format(each))
  end

  it("by maxtasksperchild cost a fork each, and nothing that stays", function()
    replaced({ processes = 2, maxtasksperchild = 1 }, identity, times(100))
  end)

  it("by exits cost a fork each, and nothing that stays", function()
    replaced({ processes = 2 }, function() os.exit(1) end, times(100), "collect")
  end)
end)

describe("many tasks", function()
  leaks.watch(after_each, assert)

  it("leave no process larger", function()
    tidemill.with(2, function(pool)
      local function sizes()
        local sum = resident()
        for _, pid in ipairs(pool:workers()) do sum = sum + processes.resident(pid) end
        return sum
      end
      local first
      for round = 1, 5 do
        pool:each(identity, tidemill.range(1, times(1e5)), 1)
        assert.equal(times(1e5), pool:mapreduce(function() return 1 end, "a, b -> a + b",
          tidemill.range(1, times(1e5)), 0, 3))
        local last
        for _, value in pool:imap_unordered(identity, tidemill.range(1, times(2e4)), 2) do
          last = value
        end
        assert.is_number(last)
        first = first or sizes()
        local grown = sizes() - first
        assert.is_true(grown < SLACK_KB, ("grew by %d KB in round %d"):format(grown, round))
      end
    end)
  end)
end)
