local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local raised = common.raised

local function sorted(list)
  table.sort(list)
  return list
end

--- Wait until so many stand at the barrier.
local function await(barrier, count)
  assert(processes.eventually(60, function() return barrier.n_waiting == count end))
end

--- Start so many that come to the barrier; each result is the place, or the kind of the error.
local function comers(count, barrier, timeout)
  return crowd.start(count, function()
    local ok, place = pcall(barrier.wait, barrier, timeout)
    return ok and place or place.kind
  end)
end

describe("tidemill.barrier", function()
  leaks.watch(after_each, assert)

  it("lets all go when all are there, each with a place of its own", function()
    local barrier = tidemill.barrier(4)
    assert.same({ 4, 0, false }, { barrier.parties, barrier.n_waiting, barrier.broken })
    local all = comers(3, barrier)
    await(barrier, 3)
    assert.equal(3, barrier:wait())
    assert.same({ 0, 1, 2 }, sorted(crowd.finish(all)))
    assert.equal(0, barrier.n_waiting)
  end)

  it("keeps many in step", function()
    local barrier, log = tidemill.barrier(3), tidemill.dict()
    local steps = 100
    crowd.run(3, function(i)
      for step = 1, steps do
        log:set(i, step)
        barrier:wait()
        for other = 1, 3 do
          local its = log:get(other)
          assert(its == step, ("%d is at %d, not %d"):format(other, its, step))
        end
        barrier:wait()
      end
    end)
  end)

  it("works for one", function()
    local barrier = tidemill.barrier(1)
    for _ = 1, 3 do assert.equal(0, barrier:wait()) end
  end)

  it("runs its action once a round, before anybody goes on", function()
    local seen = tidemill.dict()
    local barrier = tidemill.barrier(3, function()
      seen:update("rounds", function(n) return (n or 0) + 1 end)
    end)
    local results = crowd.run(3, function()
      local rounds = {}
      for i = 1, 5 do
        barrier:wait()
        rounds[i] = seen:get "rounds"
        barrier:wait()
      end
      return rounds
    end)
    for _, rounds in ipairs(results) do assert.same({ 1, 3, 5, 7, 9 }, rounds) end
  end)

  it("is broken by an action that raises", function()
    local barrier = tidemill.barrier(2, function() error { code = 7 } end)
    local all = comers(1, barrier)
    await(barrier, 1)
    local ok, err = pcall(barrier.wait, barrier)
    assert.is_false(ok)
    assert.same({ code = 7 }, err)
    assert.same({ "broken" }, crowd.finish(all))
    assert.is_true(barrier.broken)
  end)

  it("is broken by abort, until it is reset", function()
    local barrier = tidemill.barrier(3)
    local all = comers(2, barrier)
    await(barrier, 2)
    barrier:abort()
    assert.same({ "broken", "broken" }, crowd.finish(all))
    assert.is_true(barrier.broken)
    raised("broken", barrier.wait, barrier)
    barrier:reset()
    assert.is_false(barrier.broken)
    all = comers(2, barrier)
    await(barrier, 2)
    assert.equal(2, barrier:wait())
    crowd.finish(all)
  end)

  it("tells who waits when it is reset", function()
    local barrier = tidemill.barrier(3)
    local all = comers(2, barrier)
    await(barrier, 2)
    barrier:reset()
    assert.same({ "broken", "broken" }, crowd.finish(all))
    assert.is_false(barrier.broken)
  end)

  it("is broken by a time limit", function()
    local barrier = tidemill.barrier(3)
    local all = comers(1, barrier)
    await(barrier, 1)
    local seconds = crowd.time(raised, "timeout", barrier.wait, barrier, 0.1)
    assert.is_true(seconds >= 0.1)
    assert.same({ "broken" }, crowd.finish(all))
    local limited = tidemill.barrier(2, nil, 0.05)
    assert.equal(0.05, limited.timeout)
    raised("timeout", limited.wait, limited)
    assert.is_true(limited.broken)
  end)

  it("is broken by the death of one that waits", function()
    local barrier = tidemill.barrier(3)
    local victim = comers(1, barrier)
    await(barrier, 1)
    local all = comers(1, barrier)
    await(barrier, 2)
    victim[1]:kill()
    assert.same({ "broken" }, crowd.finish(all))
    victim[1]:join()
    raised("broken", barrier.wait, barrier)
  end)

  it("is broken by the death of the one that acts", function()
    local barrier = tidemill.barrier(2, function() os.exit(0) end)
    local all = comers(1, barrier)
    await(barrier, 1)
    crowd.start(1, function() barrier:wait() end)[1]:join()
    assert.same({ "broken" }, crowd.finish(all))
  end)

  it("tells who waits when nobody is left to come", function()
    local barrier = tidemill.barrier(2)
    raised("broken", barrier.wait, barrier)
    assert.is_true(barrier.broken)
  end)

  it("refuses what it does not know", function()
    for _, case in ipairs {
      { function() tidemill.barrier() end, "tidemill.barrier: parties must be a whole number" },
      { function() tidemill.barrier(0) end, "tidemill.barrier: parties must be a whole number" },
      { function() tidemill.barrier(2, 3) end, "tidemill.barrier: action must be a function" },
      { function() tidemill.barrier(2).wait() end, "barrier:wait: call it with a colon" },
    } do
      local ok, problem = pcall(case[1])
      assert.is_false(ok)
      assert.is_truthy(problem:find(case[2], 1, true), problem)
    end
  end)

  it("ends every wait, and can be used again, when those who come are killed", function()
    local barrier = tidemill.barrier(3)
    local function come(_, rounds)
      local passed, broken = 0, 0
      for _ = 1, rounds do
        local ok, err = pcall(barrier.wait, barrier, 30)
        if ok then
          passed = passed + 1
        elseif err.kind == "broken" then
          broken = broken + 1
          barrier:reset()
        else
          error(err)
        end
      end
      return passed + broken
    end
    for _ = 1, crowd.rounds do
      local all = crowd.start(3, come, 1e9)
      for i = 1, 5 do crowd.kill_after(i * 0.002, come, 0, 1e9) end
      for _, process in ipairs(all) do
        process:kill()
        process:join()
      end
      barrier:reset()
      all = comers(2, barrier)
      await(barrier, 2)
      assert.equal(2, barrier:wait())
      crowd.finish(all)
    end
  end)
end)
