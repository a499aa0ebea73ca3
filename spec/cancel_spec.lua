-- Work that is called off: what was not begun does not run, what runs is stopped.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local assert_alive = common.assert_alive

local function identity(x) return x end
local function spin() while true do end end

local function assert_cancelled(result)
  assert.is_true(result:ready())
  assert.is_false(result:successful())
  for _ = 1, 2 do
    local ok, err = pcall(result.get, result)
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
    assert.equal("cancelled", select(2, result:try(0)).kind)
  end
end

describe("cancel", function()
  leaks.watch(after_each, assert)

  it("of a call that waits keeps it from running", function()
    tidemill.with(1, function(pool)
      local gate, log = files.gate(), files.log()
      local first = pool:submit(files.pass, gate)
      local queued = pool:submit(files.note, log, "ran")
      local last = pool:submit(identity, 3)
      assert.is_true(queued:cancel())
      assert_cancelled(queued)
      files.open(gate)
      first:get()
      assert.equal(3, last:get())
      assert.same({}, files.lines(log))
      os.remove(log)
    end)
  end)

  it("of a call that runs stops its worker, and the pool goes on", function()
    tidemill.with(2, function(pool)
      for _ = 1, 5 do
        local log = files.log()
        local running = pool:submit(function()
          files.note(log, require "tidemill".worker().pid)
          spin()
        end)
        files.await(log, 1)
        local pid = tonumber(files.lines(log)[1])
        assert.is_true(running:cancel())
        assert_cancelled(running)
        assert.is_truthy(processes.eventually(30, function()
          return not processes.is_alive(pid)
        end))
        assert_alive(pool)
        os.remove(log)
      end
      assert.is_truthy(processes.eventually(30, function() return #pool:workers() == 2 end))
    end)
  end)

  it("of what is over is refused, and changes nothing", function()
    tidemill.with(1, function(pool)
      local done, failed = pool:submit(identity, 1), pool:submit(error, "no", 0)
      local mapped = pool:map_async(identity, numbers(10))
      mapped:wait()
      assert.is_false(done:cancel())
      assert.is_false(failed:cancel())
      assert.is_false(mapped:cancel())
      assert.equal(1, done:get())
      assert.equal("task", select(2, failed:try()).kind)
      assert.same(numbers(10), mapped:get())
    end)
  end)

  it("of what was terminated is refused", function()
    local pool = tidemill.pool(1)
    local result = pool:submit(spin)
    pool:terminate()
    assert.is_false(result:cancel())
    assert.equal("terminated", select(2, result:try()).kind)
  end)

  it("of a map stops it in the middle, and leaves others alone", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 10, 500 } do
        local log = files.log()
        local mapped = pool:map_async(function(x)
          files.note(log, x)
          files.nap(0.001)
          return x
        end, numbers(4000), chunk)
        local other = pool:map_async(identity, numbers(1000), 10)
        files.await(log, 5)
        assert.is_true(mapped:cancel())
        assert_cancelled(mapped)
        assert.same(numbers(1000), other:get())
        assert_alive(pool)
        local lines = #files.lines(log)
        assert.is_true(lines < 4000)
        assert_alive(pool)
        assert.equal(lines, #files.lines(log)) -- no worker goes on with it
        os.remove(log)
      end
    end)
  end)

  it("of one job leaves chunks of others in the same worker alone", function()
    tidemill.with(1, function(pool)
      local results = {}
      for i = 1, 200 do results[i] = pool:map_async(function(x) return x * i end, { 1, 2, 3 }) end
      for i = 1, 200, 2 do results[i]:cancel() end
      for i = 2, 200, 2 do assert.same({ i, 2 * i, 3 * i }, results[i]:get()) end
    end)
  end)

  it("of thousands lets the others run", function()
    tidemill.with(2, function(pool)
      local gate, log = files.gate(), files.log()
      local blockers = { pool:submit(files.pass, gate), pool:submit(files.pass, gate) }
      local results = {}
      for i = 1, 5000 do
        results[i] = i % 100 == 0 and pool:submit(files.note, log, i) or pool:submit(identity, i)
      end
      for i = 1, 5000 do
        if i % 200 == 100 or i % 2 == 1 then assert.is_true(results[i]:cancel()) end
      end
      files.open(gate)
      for _, blocker in ipairs(blockers) do blocker:get() end
      for i = 1, 5000 do
        if i % 200 == 100 or i % 2 == 1 then
          assert_cancelled(results[i])
        elseif i % 100 ~= 0 then
          assert.equal(i, results[i]:get())
        else
          results[i]:get()
        end
      end
      local ran = files.tally(log)
      for i = 100, 5000, 100 do
        assert.equal(i % 200 == 0 and 1 or nil, ran[tostring(i)])
      end
      os.remove(log)
    end)
  end)

  it("of all that runs, again and again, never loses a worker", function()
    tidemill.with(3, function(pool)
      for round = 1, 15 do
        local results = {}
        for i = 1, 9 do results[i] = pool:submit(spin) end
        local mapped = pool:map_async(spin, numbers(20), 1 + round % 5)
        if round % 3 == 0 then results[1]:wait(0.01) end
        mapped:cancel()
        for i = 9, 1, -1 do results[i]:cancel() end
        for i = 1, 9 do assert_cancelled(results[i]) end
        assert_cancelled(mapped)
        assert_alive(pool)
      end
      assert.is_truthy(processes.eventually(30, function() return #pool:workers() == 3 end))
    end)
  end)

  it("may be the last before the end of the pool", function()
    for round = 1, 10 do
      local pool = tidemill.pool(2)
      local results = {}
      for i = 1, 50 do results[i] = pool:submit(i % 10 == 1 and spin or identity, i) end
      if round % 2 == 0 then results[2]:wait(0.01) end
      for i = 1, 50, 10 do results[i]:cancel() end
      pool:close()
      assert.is_true(pool:join(30))
      for i = 1, 50 do
        if i % 10 == 1 then assert_cancelled(results[i]) else assert.equal(i, results[i]:get(0)) end
      end
    end
  end)

  it("may come from a callback", function()
    tidemill.with(2, function(pool)
      local endless = pool:submit(spin)
      pool:apply_async(identity, { 1 }, { callback = function()
        assert.is_true(endless:cancel())
      end }):wait()
      assert.is_true(endless:wait(30))
      assert_cancelled(endless)
    end)
  end)

  it("ends a wait with a timeout, and as_completed", function()
    tidemill.with(2, function(pool)
      local endless = pool:submit(spin)
      endless:cancel()
      assert.is_true(endless:wait(30))
      local queued = pool:submit(spin)
      queued:cancel()
      local count = 0
      for result in tidemill.as_completed { endless, queued } do
        count = count + 1
        assert_cancelled(result)
      end
      assert.equal(2, count)
    end)
  end)

  it("of work with retries gives them up too", function()
    tidemill.with(1, function(pool)
      local log = files.log()
      local result = pool:apply_async(function()
        files.note(log, "try")
        spin()
      end, {}, { retries = 5 })
      files.await(log, 1)
      assert.is_true(result:cancel())
      assert_cancelled(result)
      assert_alive(pool)
      assert.equal(1, #files.lines(log))
      os.remove(log)
    end)
  end)

  it("of an empty map is refused", function()
    tidemill.with(1, function(pool)
      local result = pool:map_async(identity, {})
      assert.is_false(result:cancel())
      assert.same({}, result:get())
    end)
  end)
end)
