local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local raised = common.raised

--- Start so many that wait for `condition` and return once all of them do: each result is what
--- wait returned.
local function waiters(count, condition, timeout)
  local there = tidemill.queue()
  local all = crowd.start(count, function()
    return condition:with(function()
      there:put(true)
      return (condition:wait(timeout))
    end)
  end)
  for _ = 1, count do there:get(60) end
  condition:with(function() end) -- the last one has the lock until it waits
  return all
end

local function count_ended(all)
  local ended = 0
  for _, process in ipairs(all) do
    if not process:is_alive() then ended = ended + 1 end
  end
  return ended
end

describe("tidemill.condition", function()
  leaks.watch(after_each, assert)

  it("wakes one", function()
    local condition = tidemill.condition()
    local all = waiters(3, condition)
    for i = 1, 3 do
      condition:with(function() condition:notify() end)
      assert.is_truthy((tidemill.wait(all, { timeout = 60, return_when = "first" }))[1])
      local done = #(tidemill.wait(all, 0.05))
      assert.equal(i, done)
    end
    crowd.finish(all)
  end)

  it("wakes so many, and all", function()
    local condition = tidemill.condition()
    local all = waiters(5, condition)
    condition:with(function() condition:notify(2) end)
    local deadline = tidemill.clock() + 60
    while #(tidemill.wait(all, 0.02)) < 2 do assert(tidemill.clock() < deadline) end
    assert.equal(2, #(tidemill.wait(all, 0.05)))
    condition:with(function() condition:notify_all() end)
    assert.same({ true, true, true, true, true }, crowd.finish(all))
    assert.equal(5, count_ended(all))
  end)

  it("wakes those who came first", function()
    local condition, order = tidemill.condition(), tidemill.queue()
    local all = {}
    for i = 1, 3 do
      local there = tidemill.event()
      all[i] = crowd.start(1, function()
        condition:acquire()
        there:set()
        condition:wait()
        order:put(i)
        condition:release()
      end)[1]
      there:wait(60)
      condition:with(function() end)
    end
    for i = 1, 3 do
      condition:with(function() condition:notify() end)
      assert.equal(i, order:get(60))
    end
    crowd.finish(all)
  end)

  it("waits as long as it is told, and has the lock before and after", function()
    local condition = tidemill.condition()
    assert.has_error(function() condition:wait() end, "condition:wait: acquire it first")
    condition:acquire()
    local seconds, notified = crowd.time(condition.wait, condition, 0.1)
    assert.is_false(notified)
    assert.is_true(seconds >= 0.1)
    condition:release()
    assert.has_error(function() condition:release() end,
      "condition:release: this process does not have it")
    for _, method in ipairs { "notify", "notify_all", "wait_for" } do
      assert.has_error(function() condition[method](condition, print) end,
        ("condition:%s: acquire it first"):format(method))
    end
  end)

  it("gives back a lock that was acquired more than once, and has it as often", function()
    local lock = tidemill.rlock()
    local condition = tidemill.condition(lock)
    local there = tidemill.event()
    local process = crowd.start(1, function()
      condition:acquire()
      condition:acquire()
      there:set()
      condition:wait()
      condition:release()
      local still = lock:is_held()
      condition:release()
      return { still, lock:is_held() }
    end)
    there:wait(60)
    condition:with(function() condition:notify() end)
    assert.same({ { true, false } }, crowd.finish(process))
  end)

  it("waits for what a function says", function()
    local condition, state = tidemill.condition(), tidemill.dict()
    state:set("n", 0)
    local all = crowd.start(2, function()
      return condition:with(function()
        return condition:wait_for(function() return state:get "n" == 4 and "four" end)
      end)
    end)
    for i = 1, 4 do
      condition:with(function()
        state:set("n", i)
        condition:notify_all()
      end)
    end
    assert.same({ "four", "four" }, crowd.finish(all))
    condition:acquire()
    local seconds, met = crowd.time(condition.wait_for, condition, function() return false end, 0.1)
    assert.is_false(met)
    assert.is_true(seconds >= 0.1)
    condition:release()
  end)

  it("does not spend a notification on the dead", function()
    local condition = tidemill.condition()
    local dead = waiters(2, condition)
    local living = waiters(1, condition)
    for _, process in ipairs(dead) do
      process:kill()
      process:join()
    end
    condition:with(function() condition:notify(1) end)
    assert.same({ true }, crowd.finish(living))
  end)

  it("tells of a lock that was abandoned while it waited", function()
    local condition, there = tidemill.condition(), tidemill.event()
    local all = crowd.start(1, function()
      condition:acquire()
      there:set()
      local notified, state = condition:wait()
      condition:release()
      return { notified, state }
    end)
    there:wait(60)
    crowd.start(1, function()
      condition:acquire()
      condition:notify()
      os.exit(0)
    end)[1]:join()
    assert.same({ { true, "abandoned" } }, crowd.finish(all))
  end)

  it("tells who waits when nobody is left to notify", function()
    local condition = tidemill.condition()
    condition:acquire()
    raised("broken", condition.wait, condition)
    condition:release()
  end)

  it("refuses what it does not know", function()
    local condition = tidemill.condition()
    assert.has_error(function() tidemill.condition {} end,
      "tidemill.condition: lock must be a lock, got table")
    condition:acquire()
    assert.has_error(function() condition:notify(0) end,
      "condition:notify: n must be a whole number from 1, got 0")
    assert.has_error(function() condition.wait() end, "condition:wait: call it with a colon")
    condition:release()
  end)

  it("serves who is left when others are killed at any instant", function()
    local condition, state = tidemill.condition(), tidemill.dict()
    local function work(rounds)
      for _ = 1, rounds do
        condition:with(function()
          state:update("n", function(n) return (n or 0) + 1 end)
          condition:notify()
          condition:wait(0.0005)
        end)
      end
      return true
    end
    for _ = 1, crowd.rounds do
      local steady = crowd.start(2, function(_, ...) return work(...) end, 100)
      for i = 1, 4 do crowd.kill_after(i * 0.003, work, 1e9) end
      assert.same({ true, true }, crowd.finish(steady))
    end
  end)
end)
