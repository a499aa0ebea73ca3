-- Results of calls that do not wait: many at once, cancelled, asked twice, dropped.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised
local assert_alive = common.assert_alive

local function identity(x) return x end
local function spin() while true do end end

--- Results of calls that each wait before a gate, and the gates.
local function gated(pool, count)
  local results, gates = {}, {}
  for i = 1, count do
    gates[i] = files.gate()
    results[i] = pool:apply_async(function(gate, n)
      files.pass(gate)
      return n
    end, { gates[i], i })
  end
  return results, gates
end

local function open_and_await(results, gates, i)
  files.open(gates[i])
  assert.is_truthy(processes.eventually(30, function() return results[i]:ready() end))
end

local function numbers_of(results, list)
  local found = {}
  for i, result in ipairs(list) do
    for n, candidate in ipairs(results) do
      if rawequal(candidate, result) then found[i] = n end
    end
  end
  return found
end

describe("tidemill.wait", function()
  leaks.watch(after_each, assert)

  it("waits for all, in order of completion", function()
    tidemill.with(3, function(pool)
      local results, gates = gated(pool, 3)
      for _, i in ipairs { 2, 3, 1 } do open_and_await(results, gates, i) end
      for _, options in ipairs { false, {}, { return_when = "all" }, { timeout = 30 } } do
        local done, pending = tidemill.wait(results, options or nil)
        assert.same({ 2, 3, 1 }, numbers_of(results, done))
        assert.same({}, pending)
      end
    end)
  end)

  it("returns at the first, the others as they were given", function()
    tidemill.with(3, function(pool)
      local results, gates = gated(pool, 3)
      files.open(gates[2])
      for _ = 1, 2 do -- the second time it is done already
        local done, pending = tidemill.wait(results, { return_when = "first" })
        assert.same({ 2 }, numbers_of(results, done))
        assert.same({ 1, 3 }, numbers_of(results, pending))
      end
      files.open(gates[1])
      files.open(gates[3])
    end)
  end)

  it("returns at the first error, or when all is done without one", function()
    tidemill.with(3, function(pool)
      local results, gates = gated(pool, 2)
      open_and_await(results, gates, 1)
      local gate = files.gate()
      results[3] = pool:submit(function()
        files.pass(gate)
        error "no"
      end)
      local done, pending = tidemill.wait(results, { return_when = "error", timeout = 0.05 })
      assert.same({ 1 }, numbers_of(results, done))
      assert.same({ 2, 3 }, numbers_of(results, pending))
      files.open(gate)
      for _ = 1, 2 do -- the second time it has failed already
        done, pending = tidemill.wait(results, { return_when = "error" })
        assert.same({ 1, 3 }, numbers_of(results, done))
        assert.same({ 2 }, numbers_of(results, pending))
      end
      files.open(gates[2])
      done, pending = tidemill.wait({ results[1], results[2] }, { return_when = "error" })
      assert.same({ 1, 2 }, numbers_of(results, done))
      assert.same({}, pending)
    end)
  end)

  it("counts what was cancelled as done, and as an error", function()
    local pool = tidemill.pool(1)
    local endless, queued = pool:submit(spin), pool:submit(identity)
    assert.is_true(queued:cancel())
    local done, pending = tidemill.wait({ endless, queued }, { return_when = "error" })
    assert.same({ 2 }, numbers_of({ endless, queued }, done))
    assert.same({ 1 }, numbers_of({ endless, queued }, pending))
    pool:terminate()
    done, pending = tidemill.wait { endless, queued }
    assert.equal(2, #done)
    assert.same({}, pending)
  end)

  it("waits no longer than it is told", function()
    local pool = tidemill.pool(2)
    local done_one, endless = pool:submit(identity, 1), pool:submit(spin)
    done_one:wait()
    for _, timeout in ipairs { 0, -1, 0.01, 0.05 } do
      for _, return_when in ipairs { "all", "error" } do
        local before = processes.clock()
        local done, pending = tidemill.wait({ endless, done_one },
          { timeout = timeout, return_when = return_when })
        assert.is_true(processes.clock() - before >= timeout)
        assert.same({ done_one }, done)
        assert.same({ endless }, pending)
      end
    end
    pool:terminate()
  end)

  it("takes each result once, and none at all", function()
    tidemill.with(1, function(pool)
      local result = pool:submit(identity, 1)
      local done, pending = tidemill.wait { result, result, result }
      assert.same({ result }, done)
      assert.same({}, pending)
      for _, return_when in ipairs { "all", "error", "first" } do
        local before = processes.clock()
        done, pending = tidemill.wait({}, { return_when = return_when, timeout = 5 })
        assert.same({}, done)
        assert.same({}, pending)
        assert.is_true(processes.clock() - before < 5, return_when)
      end
    end)
  end)

  it("takes results of several pools, of calls and of maps", function()
    tidemill.with(1, function(one)
      tidemill.with(2, function(two)
        local results = { one:map_async(identity, numbers(500), 1), two:submit(error, "x"),
          two:starmap_async(math.max, { { 1 }, { 2 } }), one:submit(identity, 4) }
        local done, pending = tidemill.wait(results, { timeout = 60 })
        assert.equal(4, #done)
        assert.same({}, pending)
        local gate = files.gate()
        local slow = one:submit(files.pass, gate)
        local endless = two:submit(spin)
        files.open(gate)
        done, pending = tidemill.wait({ endless, slow }, { return_when = "first" })
        assert.same({ slow }, done)
        assert.same({ endless }, pending)
        endless:cancel()
      end)
    end)
  end)

  it("refuses a result that stands alone, where a list is needed", function()
    tidemill.with(1, function(pool)
      for _, f in ipairs { tidemill.wait, tidemill.as_completed } do
        local ok, err = pcall(f, pool:submit(identity))
        assert.is_false(ok)
        assert.is_string(err)
      end
    end)
  end)

  it("refuses what it cannot use", function()
    tidemill.with(1, function(pool)
      local result = pool:submit(identity)
      for _, args in ipairs { {}, { 1 }, { { 1 } }, { { result, {} } },
        { {}, { return_when = "some" } }, { {}, { when = "all" } }, { {}, { timeout = "1" } } } do
        local ok, err = pcall(tidemill.wait, args[1], args[2])
        assert.is_false(ok)
        assert.is_string(err)
      end
    end)
  end)
end)

describe("tidemill.as_completed", function()
  leaks.watch(after_each, assert)

  it("gives results in order of completion", function()
    tidemill.with(4, function(pool)
      local results, gates = gated(pool, 4)
      for _, i in ipairs { 3, 1 } do open_and_await(results, gates, i) end
      local nth = { 3, 1, 4, 2 }
      local count = 0
      for result in tidemill.as_completed(results) do
        count = count + 1
        assert.equal(nth[count], result:get())
        if nth[count + 1] and count >= 2 then files.open(gates[nth[count + 1]]) end
      end
      assert.equal(4, count)
    end)
  end)

  it("gives each once, however often it is in the list", function()
    tidemill.with(2, function(pool)
      local a, b = pool:submit(identity, 1), pool:submit(identity, 2)
      local count = 0
      for result in tidemill.as_completed { a, b, a, a, b } do
        count = count + 1
        assert.is_true(rawequal(result, a) or rawequal(result, b))
      end
      assert.equal(2, count)
      for _ in tidemill.as_completed {} do error "there is none" end
    end)
  end)

  it("gives what is done before its time is over, then raises", function()
    local pool = tidemill.pool(2)
    local done, endless = pool:submit(identity, 1), pool:submit(spin)
    done:wait()
    for _, timeout in ipairs { 0, 0.1 } do
      local step = tidemill.as_completed({ endless, done }, timeout)
      assert.is_true(rawequal(done, step()))
      local before = processes.clock()
      raised("timeout", step)
      raised("timeout", step)
      assert.is_true(processes.clock() - before < 20)
    end
    pool:terminate()
    local count = 0
    for _ in tidemill.as_completed({ endless, done }, 0) do count = count + 1 end
    assert.equal(2, count)
  end)

  it("takes results of several pools, failed ones too", function()
    tidemill.with(2, function(one)
      tidemill.with(2, function(two)
        local results = {}
        for i = 1, 100 do
          local pool = i % 2 == 0 and one or two
          results[i] = i % 5 == 0 and pool:submit(error, i) or pool:submit(identity, i)
        end
        local seen, failed = 0, 0
        for result in tidemill.as_completed(results, 60) do
          seen = seen + 1
          if not result:successful() then failed = failed + 1 end
        end
        assert.equal(100, seen)
        assert.equal(20, failed)
      end)
    end)
  end)

  it("keeps none that it has given", function()
    tidemill.with(2, function(pool)
      local function submit()
        local results = {}
        for i = 1, 20 do results[i] = pool:submit(identity, i) end
        return results
      end
      local given, count = setmetatable({}, { __mode = "k" }), 0
      local step = tidemill.as_completed(submit())
      local function take()
        local result = step()
        if result then given[result] = true end
        return result ~= nil
      end
      while take() do
        count = count + 1
        collectgarbage()
        collectgarbage()
        assert.is_nil(next(given))
      end
      assert.equal(20, count)
    end)
  end)

  it("may be left, and its results added to", function()
    tidemill.with(2, function(pool)
      local results = {}
      for i = 1, 10 do results[i] = pool:submit(identity, i) end
      local step = tidemill.as_completed(results)
      local first = step()
      results[11] = pool:submit(identity, 11)
      assert.equal(11, results[11]:get())
      assert.is_true(first:ready())
      local rest = 0
      for _ in step do rest = rest + 1 end
      assert.equal(9, rest)
    end)
  end)

  it("gives thousands", function()
    tidemill.with(2, function(pool)
      local results, sum = {}, 0
      for i = 1, 5000 do results[i] = pool:submit(identity, i) end
      for result in tidemill.as_completed(results) do sum = sum + result:get() end
      assert.equal(12502500, sum)
    end)
  end)
end)

describe("a result", function()
  leaks.watch(after_each, assert)

  it("gives up in time, whichever way it is asked, and keeps the late reply", function()
    tidemill.with(1, function(pool)
      local results, gates = gated(pool, 1)
      local result = results[1]
      for _, timeout in ipairs { 0, -1, 0.02 } do
        raised("timeout", result.get, result, timeout)
        local ok, err = result:try(timeout)
        assert.is_false(ok)
        assert.equal("timeout", err.kind)
        assert.is_false(result:wait(timeout))
        assert.is_false(result:ready())
      end
      files.open(gates[1])
      assert.equal(1, result:get(30))
      assert.equal(1, result:get(0))
      assert.is_true(result:ready())
      assert.is_true(result:successful())
    end)
  end)

  it("that is dropped is run all the same", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      for i = 1, 50 do pool:submit(files.note, log, i) end
      pool:map_async(function(x) files.note(log, x) end, numbers(50), 3)
      collectgarbage()
      collectgarbage()
    end)
    assert.equal(100, #files.lines(log))
    os.remove(log)
  end)

  it("that is dropped costs nothing", function()
    tidemill.with(2, function(pool)
      local function round()
        for _ = 1, 60 do pool:submit(string.rep, "x", 1e6) end
        pool:submit(identity, 1):get()
        for _ = 1, 60 do pool:submit(string.len, ("y"):rep(1e6)) end
        assert_alive(pool)
        collectgarbage()
        collectgarbage()
      end
      for _ = 1, 3 do round() end
      local before = processes.resident "self"
      for _ = 1, 5 do round() end
      local added = processes.resident "self" - before
      assert.is_true(added < 100 * 1024, ("%d kB were added"):format(added))
    end)
  end)

  it("keeps no arguments, and when it is gone no values", function()
    tidemill.with(1, function(pool)
      local weak = setmetatable({}, { __mode = "k" })
      local result = pool:map_async(function(x) return { x } end, (function()
        local item = { 1 }
        weak[item] = true
        return { item }
      end)())
      local value = result:get()
      weak[value] = true
      collectgarbage()
      collectgarbage()
      local count = 0
      for _ in pairs(weak) do count = count + 1 end
      assert.equal(1, count)
      value, result = nil, nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
    end)
  end)

  it("keeps neither arguments nor values in the workers", function()
    tidemill.with(2, function(pool)
      local function resident()
        local sum = 0
        for _, pid in ipairs(pool:workers()) do sum = sum + processes.resident(pid) end
        return sum
      end
      local function round()
        for i = 1, 100 do
          assert.equal(1e6, #pool:apply(identity, { string.char(i):rep(1e6) }))
        end
      end
      round()
      local before = resident()
      round()
      local added = resident() - before
      assert.is_true(added < 50 * 1024, ("%d kB of 100 MB are kept"):format(added))
    end)
  end)

  it("says what it is", function()
    local pool = tidemill.pool(1)
    local result = pool:submit(spin)
    assert.is_string(tostring(result))
    pool:terminate()
    assert.is_string(tostring(result))
  end)

  it("is an empty list to who forgets to ask it", function()
    tidemill.with(1, function(pool)
      local label = { progress = function() end }
      for _, result in ipairs { pool:map_async(identity, { 5, 6 }), pool:submit(identity, 7),
          pool:map_async(identity, { 5, 6 }, label), pool:submit(error, "no") } do
        for _ in ipairs(result) do error "there is something" end
        result:wait()
        for _ in ipairs(result) do error "there is something" end
        assert.is_nil(result[1])
      end
    end)
  end)

  it("keeps nothing of waits that have ended", function()
    tidemill.with(1, function(pool)
      local gate = files.gate()
      local results = { pool:submit(files.pass, gate), pool:submit(files.pass, gate) }
      local function kilobytes_after(count)
        for _ = 1, count do tidemill.wait(results, { timeout = 0 }) end
        collectgarbage()
        return collectgarbage "count"
      end
      local before = kilobytes_after(100)
      assert.is_true(kilobytes_after(5000) - before < 100)
      files.open(gate)
      assert.equal(2, #tidemill.wait(results))
    end)
  end)

  it("tells very many functions apart that are made in a loop", function()
    tidemill.with(1, function(pool)
      local results = {}
      for number = 1, 30000 do
        results[number] = pool:submit(function() return number end)
      end
      for number, result in ipairs(results) do
        if result:get() ~= number then error("another's number for " .. number) end
      end
    end)
  end)

  it("of more than 64 pools wakes for any of them", function()
    local pools, results, gate = {}, {}, files.gate()
    for i = 1, 66 do
      pools[i] = tidemill.pool(1)
      pools[i]:apply(identity)
    end
    for i, pool in ipairs(pools) do
      results[i] = i < 66 and pool:submit(files.pass, gate) or pool:submit(files.nap, 0.2)
    end
    local from = processes.clock()
    local done = tidemill.wait(results, { return_when = "first", timeout = 10 })
    assert.is_true(processes.clock() - from < 5)
    assert.equal(results[66], done[1])
    files.open(gate)
    for _, pool in ipairs(pools) do pool:terminate() end
  end)
end)
