local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local raised = common.raised

describe("tidemill.event", function()
  leaks.watch(after_each, assert)

  it("is set and cleared", function()
    local event = tidemill.event()
    assert.is_false(event:is_set())
    assert.is_false(event:wait(0))
    local seconds, set = crowd.time(event.wait, event, 0.1)
    assert.is_false(set)
    assert.is_true(seconds >= 0.1)
    event:set()
    event:set()
    assert.is_true(event:is_set())
    assert.is_true(event:wait())
    assert.is_true(event:wait(0))
    event:clear()
    assert.is_false(event:is_set())
    assert.is_false(event:wait(0))
    assert.equal("tidemill.Event (clear)", tostring(event))
  end)

  it("wakes all who wait when a process sets it", function()
    local event, there = tidemill.event(), tidemill.queue()
    local all = crowd.start(4, function(i)
      there:put(i)
      return event:wait()
    end)
    for _ = 1, 4 do there:get(60) end
    crowd.run(1, function() event:set() end)
    assert.same({ true, true, true, true }, crowd.finish(all))
  end)

  it("was set for who was woken, if it is cleared at once", function()
    local event, there = tidemill.event(), tidemill.queue()
    for _ = 1, 20 do
      local all = crowd.start(1, function()
        there:put(true)
        return event:wait(60)
      end)
      there:get(60)
      while all[1]:is_alive() do
        event:set()
        event:clear()
      end
      assert.is_true(all[1]:result())
    end
  end)

  it("tells who waits when nobody is left to set it", function()
    local event = tidemill.event()
    raised("broken", event.wait, event)
    assert.is_false(event:wait(0.01)) -- with a limit there is no need
    local ended = crowd.start(1, function() return event:is_set() end)
    raised("broken", event.wait, event)
    crowd.finish(ended)
    local all = crowd.start(2, function() return event:wait(60) end)
    assert.is_false(event:wait(0.05))
    event:set()
    assert.same({ true, true }, crowd.finish(all))
  end)

  it("does not tell while it is on its way to somebody", function()
    local event, gate = tidemill.event(), tidemill.event()
    tidemill.with(1, function(pool)
      local first = pool:submit(function() return gate:wait(60) end)
      local second = pool:submit(function() event:set() end) -- waits for the worker
      crowd.run(1, function() gate:set() end)
      assert.is_true(event:wait())
      first:get()
      second:get()
    end)
  end)

  it("serves who is left when those who wait are killed", function()
    local event = tidemill.event()
    for _ = 1, crowd.rounds do
      local all = crowd.start(2, function() return event:wait() end)
      for i = 1, 4 do crowd.kill_after(i * 0.003, function() event:wait() end) end
      event:set()
      assert.same({ true, true }, crowd.finish(all))
      event:clear()
    end
  end)
end)
