local common = require "support.common"
local crowd = require "support.crowd"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local raised = common.raised

describe("tidemill.queue", function()
  leaks.watch(after_each, assert)

  it("gives values in the order in which they were put", function()
    local queue = tidemill.queue()
    for i = 1, 1000 do queue:put(i) end
    assert.equal(1000, queue:size())
    for i = 1, 1000 do assert.equal(i, queue:get()) end
    assert.equal(0, queue:size())
  end)

  it("takes values of any size and sort that travel", function()
    local queue = tidemill.queue()
    local values = {
      false, true, 0 / 0, -0, 1e300, "", ("x"):rep(3000), ("y"):rep(1e6), { 1, { 2 } }, { a = {} },
    }
    queue:put(nil)
    for _, value in ipairs(values) do queue:put(value) end
    queue:put(function(x) return x + 1 end)
    assert.is_nil(queue:get())
    for _, value in ipairs(values) do
      local got = queue:get()
      if value == value then assert.same(value, got) else assert.is_true(got ~= got) end
    end
    assert.equal(8, queue:get()(7))
  end)

  it("copies what is put", function()
    local queue, value = tidemill.queue(), { 1 }
    queue:put(value)
    value[1] = 2
    assert.same({ 1 }, queue:get())
  end)

  it("refuses what cannot travel, and is as before", function()
    local queue = tidemill.queue(1)
    local err = raised("encode", queue.put, queue, { at = coroutine.create(print) })
    assert.is_truthy(err.message:find("at", 1, true), err.message)
    raised("encode", queue.try_put, queue, io.stdout)
    assert.equal(0, queue:size())
    queue:put "next"
    assert.equal("next", queue:get())
  end)

  it("is full at its capacity", function()
    local queue = tidemill.queue(3)
    for i = 1, 3 do assert.is_true(queue:try_put(i)) end
    assert.is_false(queue:try_put(4))
    local seconds = crowd.time(raised, "timeout", queue.put, queue, 4, 0.1)
    assert.is_true(seconds >= 0.1)
    raised("timeout", queue.put, queue, 4, 0)
    assert.equal(1, queue:get())
    assert.is_true(queue:try_put(4))
    assert.equal("tidemill.Queue (3 of 3 values)", tostring(queue))
  end)

  it("waits for values as long as it is told", function()
    local queue = tidemill.queue()
    assert.same({ false }, { queue:try_get() })
    local seconds = crowd.time(raised, "timeout", queue.get, queue, 0.1)
    assert.is_true(seconds >= 0.1)
    raised("timeout", queue.get, queue, 0)
    queue:put(5)
    assert.same({ true, 5 }, { queue:try_get() })
  end)

  it("was made before or after the processes that use it", function()
    local early = tidemill.queue()
    tidemill.with(2, function(pool)
      local late = tidemill.queue()
      pool:map(function(i)
        early:put(i)
        late:put(-i)
      end, common.numbers(20))
      local sum = 0
      for _ = 1, 20 do sum = sum + early:get(60) * 1000 + late:get(60) end
      assert.equal(210 * 999, sum)
    end)
  end)

  it("ends loops when it is closed and empty", function()
    local queue = tidemill.queue()
    local all = crowd.start(1, function()
      local got = {}
      for i, value in queue do got[i] = value end
      return got
    end)
    for i = 1, 5 do queue:put(i * i) end
    queue:close()
    queue:close()
    assert.same({ { 1, 4, 9, 16, 25 } }, crowd.finish(all))
    assert.is_true(queue:is_closed())
    raised("closed", queue.put, queue, 1)
    raised("closed", queue.try_put, queue, 1)
    raised("closed", queue.get, queue)
    assert.is_false((queue:try_get()))
  end)

  it("wakes who waits when it is closed", function()
    local queue = tidemill.queue(1)
    local takers = crowd.start(2, function() return select(2, pcall(queue.get, queue)).kind end)
    processes.eventually(0.05, function() return false end)
    queue:close()
    assert.same({ "closed", "closed" }, crowd.finish(takers))
    local full = tidemill.queue(1)
    full:put(1)
    local putters = crowd.start(1, function() return select(2, pcall(full.put, full, 2)).kind end)
    processes.eventually(0.05, function() return false end)
    full:close()
    assert.same({ "closed" }, crowd.finish(putters))
  end)

  it("knows when all that was put has been dealt with", function()
    local queue = tidemill.queue()
    assert.is_true(queue:join(0))
    local all = crowd.start(4, function()
      for _, value in queue do
        if value == "end" then break end
        queue:task_done()
      end
      queue:task_done()
    end)
    for i = 1, 10 do queue:put(i) end
    assert.is_true(queue:join(60))
    assert.equal(0, queue:size())
    for _ = 1, 4 do queue:put "end" end
    assert.is_true(queue:join(60))
    crowd.finish(all)
    assert.has_error(function() queue:task_done() end,
      "queue:task_done: called more often than values were got")
    queue:put(1)
    assert.is_false(queue:join(0.01))
  end)

  it("carries itself, and other shared things, which live as long as they are in it", function()
    local queue = tidemill.queue()
    do
      local inner = tidemill.queue()
      inner:put "inside"
      queue:put { inner, queue }
    end
    collectgarbage()
    collectgarbage()
    local got = queue:get()
    assert.equal(queue, got[2])
    assert.equal("inside", got[1]:get())
    crowd.run(1, function()
      local made = tidemill.queue()
      made:put "by one that has ended"
      queue:put(made)
    end)
    assert.equal("by one that has ended", queue:get():get())
  end)

  it("passes all of many producers to many consumers, once each", function()
    for _, capacity in ipairs { false, 5 } do
      local queue, results = tidemill.queue(capacity or nil), tidemill.queue()
      local producers = crowd.start(3, function(side)
        for i = 1, 500 do queue:put { side, i } end
      end)
      local consumers = crowd.start(3, function()
        local last, sum = { 0, 0, 0 }, 0
        for _, value in queue do
          assert(value[2] > last[value[1]], "out of order")
          last[value[1]] = value[2]
          sum = sum + value[2]
        end
        results:put(sum)
      end)
      crowd.finish(producers)
      queue:close()
      crowd.finish(consumers)
      local sum = 0
      for _ = 1, 3 do sum = sum + results:get() end
      assert.equal(3 * 500 * 501 / 2, sum)
    end
  end)

  it("tells who waits when nobody is left at the other end", function()
    local queue = tidemill.queue(1)
    raised("broken", queue.get, queue)
    queue:put(1)
    raised("broken", queue.put, queue, 2)
    raised("broken", queue.join, queue)
    queue:get()
    crowd.run(1, function() queue:put(1) end)
    assert.equal(1, queue:get())
    raised("broken", queue.get, queue)
  end)

  it("refuses what it does not know", function()
    local queue = tidemill.queue()
    for _, case in ipairs {
      { function() tidemill.queue(0) end, "tidemill.queue: capacity must be a whole number" },
      { function() tidemill.queue "x" end, "tidemill.queue: capacity must be a whole number" },
      { function() queue:get "x" end, "queue:get: timeout must be a number of seconds" },
      { function() queue.put(1) end, "queue:put: call it with a colon" },
    } do
      local ok, problem = pcall(case[1])
      assert.is_false(ok)
      assert.is_truthy(problem:find(case[2], 1, true), problem)
    end
  end)

  it("serves who is left when producers and consumers are killed at any instant", function()
    local function produce(queue)
      for i = 1, 1e9 do queue:put { i, ("x"):rep(i % 50 == 0 and 3000 or i % 20) } end
    end
    local function consume(queue)
      for _, value in queue do
        assert(#value[2] == (value[1] % 50 == 0 and 3000 or value[1] % 20))
      end
    end
    for _ = 1, crowd.rounds do
      for _, capacity in ipairs { 10, 10000 } do
        local queue = tidemill.queue(capacity)
        local good = crowd.start(1, function() consume(queue) return true end)
        for i = 1, 4 do
          crowd.kill_after(i * 0.003, produce, queue)
          crowd.kill_after(i * 0.003, consume, queue)
        end
        queue:put({ 7, ("x"):rep(7) }, 60)
        queue:close()
        assert.same({ true }, crowd.finish(good))
        assert.equal(0, queue:size())
      end
    end
  end)
end)

describe("the tutorials of multiprocessing", function()
  leaks.watch(after_each, assert)

  it("count together under a lock", function()
    local lock, counter = tidemill.lock(), tidemill.dict()
    counter:set("value", 0)
    local all = {}
    for i = 1, 3 do
      all[i] = tidemill.process(function(times)
        for _ = 1, times do
          lock:with(function() counter:set("value", counter:get "value" + 1) end)
        end
      end, { 100 })
    end
    for _, process in ipairs(all) do process:start() end
    for _, process in ipairs(all) do process:join() end
    assert.equal(300, counter:get "value")
  end)

  it("sum the parts of a range and send the sums through a queue", function()
    local queue = tidemill.queue()
    local function partial_sum(part, first, last)
      local sum = 0
      for i = first, last do sum = sum + i end
      queue:put { part, sum }
    end
    local all = {}
    for part = 0, 3 do
      all[#all + 1] = tidemill.process(partial_sum, { part, part * 250, part * 250 + 249 })
      all[#all]:start()
    end
    local sums = {}
    for _ = 1, 4 do
      local result = queue:get(60)
      sums[result[1] + 1] = result[2]
    end
    for _, process in ipairs(all) do process:join() end
    assert.same({ 31125, 93625, 156125, 218625 }, sums)
  end)
end)
