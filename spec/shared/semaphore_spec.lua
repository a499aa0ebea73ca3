local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local raised = common.raised

describe("tidemill.semaphore", function()
  leaks.watch(after_each, assert)

  for _, kind in ipairs { "semaphore", "bounded_semaphore" } do
    it("counts down and up, " .. kind, function()
      local semaphore = tidemill[kind](2)
      assert.equal(2, semaphore:value())
      assert.is_true(semaphore:acquire())
      assert.is_true(semaphore:acquire(0.1))
      assert.equal(0, semaphore:value())
      assert.is_false(semaphore:acquire(0))
      assert.is_false(semaphore:acquire(false))
      semaphore:release()
      assert.equal(1, semaphore:value())
      semaphore:release()
      assert.equal(2, semaphore:value())
    end)

    it("waits as long as it is told, " .. kind, function()
      local semaphore = tidemill[kind]()
      assert.is_true(semaphore:acquire())
      local seconds, acquired = crowd.time(semaphore.acquire, semaphore, 0.1)
      assert.is_false(acquired)
      assert.is_true(seconds >= 0.1)
    end)
  end

  it("may be released without bound", function()
    local semaphore = tidemill.semaphore(0)
    semaphore:release(5)
    for _ = 1, 5 do assert.is_true(semaphore:acquire(0)) end
    assert.is_false(semaphore:acquire(0))
  end)

  it("may be bounded", function()
    local semaphore = tidemill.bounded_semaphore(2)
    assert.has_error(function() semaphore:release() end,
      "semaphore:release: released too many times")
    semaphore:acquire()
    assert.has_error(function() semaphore:release(2) end,
      "semaphore:release: released too many times")
    semaphore:release()
    assert.equal(2, semaphore:value())
  end)

  it("wakes as many as it lets in", function()
    local semaphore, got = tidemill.semaphore(0), tidemill.queue()
    local all = crowd.start(5, function(i)
      semaphore:acquire()
      got:put(i)
    end)
    assert.is_false((pcall(got.get, got, 0.05)))
    semaphore:release(2)
    got:get(60)
    got:get(60)
    assert.is_false((pcall(got.get, got, 0.05)))
    semaphore:release(3)
    crowd.finish(all)
    assert.equal(3, got:size())
  end)

  it("lets in no more than it has", function()
    local semaphore, inside = tidemill.semaphore(2), tidemill.dict()
    inside:set("now", 0)
    inside:set("most", 0)
    crowd.run(4, function()
      for _ = 1, 50 do
        semaphore:with(function()
          local now = inside:update("now", function(n) return n + 1 end)
          inside:update("most", function(n) return math.max(n, now) end)
          inside:update("now", function(n) return n - 1 end)
        end)
      end
    end)
    assert.is_true(inside:get "most" <= 2)
    assert.equal(2, semaphore:value())
  end)

  it("has back what was taken by with when its taker is killed", function()
    local semaphore = tidemill.semaphore(1)
    local up = tidemill.event()
    local process = tidemill.process(function()
      semaphore:with(function()
        up:set()
        while true do end
      end)
    end)
    process:start()
    assert.is_true(up:wait(60))
    assert.is_false(semaphore:acquire(0))
    process:kill()
    assert.is_true(semaphore:acquire(60))
    semaphore:release()
    assert.equal(1, semaphore:value())
    process:join()
  end)

  it("does not have back what was taken by acquire", function()
    local semaphore = tidemill.semaphore(2)
    crowd.run(1, function() semaphore:acquire() end)
    assert.equal(1, semaphore:value())
  end)

  it("runs a function, and counts up again whatever that does", function()
    local semaphore = tidemill.semaphore(1)
    assert.equal(7, semaphore:with(function() return 7 end))
    assert.is_false((pcall(semaphore.with, semaphore, function() error "no" end)))
    assert.equal(1, semaphore:value())
  end)

  it("tells who waits when nobody is left to release it", function()
    local semaphore = tidemill.semaphore(0)
    raised("broken", semaphore.acquire, semaphore)
    local all = crowd.start(1, function() return semaphore:value() end)
    raised("broken", semaphore.acquire, semaphore) -- when that one has ended
    crowd.finish(all)
  end)

  it("refuses what it does not know", function()
    local semaphore = tidemill.semaphore()
    for _, case in ipairs {
      { function() tidemill.semaphore(-1) end, "tidemill.semaphore: n must be a whole number" },
      { function() tidemill.semaphore "x" end, "tidemill.semaphore: n must be a whole number" },
      { function() tidemill.bounded_semaphore(0) end,
        "tidemill.bounded_semaphore: n must be a whole number from 1" },
      { function() semaphore:release(0) end, "semaphore:release: n must be a whole number from 1" },
      { function() semaphore:acquire "x" end, "semaphore:acquire: timeout must be a number" },
      { function() semaphore.acquire() end, "semaphore:acquire: call it with a colon" },
    } do
      local ok, problem = pcall(case[1])
      assert.is_false(ok)
      assert.is_truthy(problem:find(case[2], 1, true), problem)
    end
  end)

  it("keeps its count while takers are killed at any instant", function()
    local semaphore = tidemill.semaphore(2)
    local function work(rounds)
      for _ = 1, rounds do semaphore:with(function() end) end
      return true
    end
    for _ = 1, crowd.rounds do
      local steady = crowd.start(2, function(_, ...) return work(...) end, 300)
      for i = 1, 5 do crowd.kill_after(i * 0.002, work, 1e9) end
      crowd.finish(steady)
      assert.is_true(semaphore:acquire(60))
      assert.is_true(semaphore:acquire(60))
      assert.is_false(semaphore:acquire(0))
      semaphore:release(2)
    end
  end)
end)
