-- Callbacks: in the host, once each, in order of completion, whatever they do.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers

local function identity(x) return x end
local function spin() while true do end end

--- A pair of callbacks that count their calls and keep what they were given.
local function recorder()
  local record = { calls = {}, errors = {} }
  function record.callback(...)
    record.calls[#record.calls + 1] = { n = select("#", ...), ... }
  end
  function record.error_callback(err) record.errors[#record.errors + 1] = err end
  record.options = { callback = record.callback, error_callback = record.error_callback }
  return record
end

describe("a callback", function()
  leaks.watch(after_each, assert)

  it("gets what get returns, once, before a wait returns", function()
    tidemill.with(2, function(pool)
      local record = recorder()
      local result = pool:map_async("x -> x * 2", { 1, 2, 3 }, record.options)
      assert.is_true(result:wait(30))
      assert.same({ { n = 1, { 2, 4, 6 } } }, record.calls)
      assert.same({ 2, 4, 6 }, result:get())
      record = recorder()
      pool:starmap_async("a, b -> a + b", { { 1, 2 }, { 3, 4 } }, record.options):get()
      assert.same({ { n = 1, { 3, 7 } } }, record.calls)
      record = recorder()
      result = pool:apply_async(function(...) return ..., nil end, { 1, nil }, record.options)
      result:get()
      result:get()
      assert.equal(1, #record.calls)
      assert.equal(result:get(), record.calls[1][1])
      assert.same({}, record.errors)
    end)
  end)

  it("gets all return values of a call, nils too", function()
    tidemill.with(1, function(pool)
      local record = recorder()
      pool:apply_async(function() return nil, 2, nil end, {}, record.options):wait()
      pool:apply_async(function() end, {}, record.options):wait()
      assert.equal(2, #record.calls)
      assert.equal(3, record.calls[1].n)
      assert.equal(2, record.calls[1][2])
      assert.equal(0, record.calls[2].n)
    end)
  end)

  it("for errors gets what get raises, once", function()
    tidemill.with(2, function(pool)
      local record = recorder()
      local failed = pool:map_async(function(x) if x == 3 then error { code = x } end end,
        numbers(10), record.options)
      local call = pool:apply_async(os.exit, { 7 }, record.options)
      failed:wait()
      call:wait()
      assert.same({}, record.calls)
      assert.equal(2, #record.errors)
      for _, result in ipairs { failed, call } do
        local err = select(2, result:try())
        assert.is_true(rawequal(err, record.errors[1]) or rawequal(err, record.errors[2]))
      end
    end)
  end)

  it("alone is enough: the other may be left out", function()
    tidemill.with(1, function(pool)
      local record = recorder()
      pool:apply_async(error, { "no" }, { callback = record.callback }):wait()
      pool:apply_async(identity, { 1 }, { error_callback = record.error_callback }):wait()
      assert.same({}, record.calls)
      assert.same({}, record.errors)
    end)
  end)

  it("gets collected errors among the values", function()
    tidemill.with(1, function(pool)
      local record = recorder()
      pool:map_async(function(x) return x == 2 and error "two" or x end, { 1, 2, 3 },
        { errors = "collect", callback = record.callback,
          error_callback = record.error_callback }):wait()
      assert.same({}, record.errors)
      assert.equal(3, record.calls[1][1][3])
      assert.equal("task", record.calls[1][1][2].kind)
    end)
  end)

  it("is called for empty inputs too, in a call that waits", function()
    tidemill.with(1, function(pool)
      for _, method in ipairs { "map_async", "starmap_async" } do
        for _, items in ipairs { {}, tidemill.range(1, 0), function() end } do
          local record = recorder()
          local result = pool[method](pool, identity, items, record.options)
          assert.same({}, record.calls)
          assert.is_true(result:wait(30))
          assert.same({ { n = 1, {} } }, record.calls)
        end
      end
    end)
  end)

  it("of a call that waits itself is called before it returns", function()
    tidemill.with(1, function(pool)
      local record = recorder()
      pool:map(identity, { 1, 2 }, record.options)
      assert.same({ { n = 1, { 1, 2 } } }, record.calls)
      assert.is_false((pcall(pool.map, pool, error, { 1, 2 }, record.options)))
      assert.equal(1, #record.errors)
      pool:apply(math.max, { 1, 2 }, record.options)
      assert.same({ n = 1, 2 }, record.calls[2])
    end)
  end)

  it("runs in the host, also for upvalues that cannot travel", function()
    tidemill.with(2, function(pool)
      local host, thread, pid = processes.self(), coroutine.create(identity), nil
      pool:submit(identity):wait()
      pool:apply_async(identity, { 1 }, { callback = function()
        pid = thread and processes.self()
      end }):wait()
      assert.equal(host, pid)
    end)
  end)

  it("does not run while nobody waits", function()
    tidemill.with(1, function(pool)
      local record = recorder()
      local result = pool:apply_async(identity, { 1 }, record.options)
      assert.is_truthy(processes.eventually(30, function() return result:ready() end))
      assert.same({}, record.calls)
      result:get()
      assert.equal(1, #record.calls)
    end)
  end)

  it("runs in whatever call waits next", function()
    local function waits(pool)
      local stream = pool:imap(identity, numbers(1000), 1)
      return {
        get = function() pool:submit(identity, 1):get() end,
        wait = function() pool:submit(identity, 1):wait() end,
        map = function() pool:map(identity, { 1 }) end,
        poll = function() pool:poll() end,
        iteration = function() for _ in stream do pcall(identity) end end,
        ["tidemill.wait"] = function() tidemill.wait { pool:submit(identity, 1) } end,
        as_completed = function()
          for result in tidemill.as_completed { pool:submit(identity, 1) } do result:get() end
        end,
        join = function()
          pool:close()
          pool:join()
        end,
      }
    end
    for name in pairs(waits(tidemill.pool(1))) do
      tidemill.with(1, function(pool)
        local record = recorder()
        local result = pool:apply_async(identity, { 1 }, record.options)
        assert.is_truthy(processes.eventually(30, function() return result:ready() end))
        waits(pool)[name]()
        assert.equal(1, #record.calls, name)
      end)
    end
  end)

  it("comes in order of completion", function()
    tidemill.with(4, function(pool)
      local gates, order, results = {}, {}, {}
      for i = 1, 4 do
        gates[i] = files.gate()
        results[i] = pool:apply_async(files.pass, { gates[i] },
          { callback = function() order[#order + 1] = i end })
      end
      for _, i in ipairs { 3, 1, 4, 2 } do
        files.open(gates[i])
        assert.is_truthy(processes.eventually(30, function() return results[i]:ready() end))
      end
      results[1]:wait()
      results[2]:wait()
      assert.same({ 3, 1, 4, 2 }, order)
    end)
  end)

  it("of results that were dropped is called too", function()
    local record = recorder()
    local pool = tidemill.pool(2)
    for i = 1, 100 do pool:apply_async(identity, { i }, record.options) end
    pool:map_async(error, { 1 }, record.options)
    collectgarbage()
    collectgarbage()
    pool:close()
    pool:join()
    assert.equal(100, #record.calls)
    assert.equal(1, #record.errors)
  end)

  it("hears of work that was terminated or cancelled", function()
    local record = recorder()
    local pool = tidemill.pool(1)
    local running = pool:apply_async(spin, {}, record.options)
    local queued = pool:apply_async(identity, { 1 }, record.options)
    assert.is_true(queued:cancel())
    assert.is_true(queued:wait(30))
    pool:terminate()
    assert.is_true(running:wait(30))
    assert.same({}, record.calls)
    assert.equal("cancelled", record.errors[1].kind)
    assert.equal("terminated", record.errors[2].kind)
    assert.equal(2, #record.errors)
  end)

  it("is not called for a wait that is given up", function()
    local record = recorder()
    local pool = tidemill.pool(1)
    local result = pool:apply_async(spin, {}, record.options)
    assert.is_false(result:wait(0.01))
    assert.is_false((result:try(0.01)))
    assert.same({}, record.calls)
    assert.same({}, record.errors)
    pool:terminate()
  end)

  it("may give out more work, and wait for it", function()
    tidemill.with(2, function(pool)
      local sum = 0
      local function chain(n)
        sum = sum + n
        if n < 50 then pool:apply_async(identity, { n + 1 }, { callback = chain }) end
      end
      pool:apply_async(identity, { 1 }, { callback = chain })
      assert.is_truthy(processes.eventually(30, function()
        pool:submit(identity):get()
        return sum == 1275
      end))
      local inner
      pool:apply_async(identity, { 1 }, { callback = function()
        inner = pool:map(identity, numbers(100), 7)
      end }):wait()
      assert.same(numbers(100), inner)
    end)
  end)

  it("may close or terminate the pool", function()
    for _, ending in ipairs { "close", "terminate" } do
      local pool = tidemill.pool(2)
      local called = 0
      local result = pool:apply_async(identity, { 1 }, { callback = function()
        called = called + 1
        pool[ending](pool)
      end })
      local other = pool:submit(spin)
      assert.equal(1, result:get(30))
      assert.equal(1, called)
      if ending == "close" then pool:terminate() end
      assert.equal("terminated", select(2, other:try(30)).kind)
      assert.is_true(pool:join(30))
    end
  end)

  it("that terminates in a map ends that map", function()
    local pool = tidemill.pool(2)
    pool:apply_async(identity, { 1 }, { callback = function() pool:terminate() end })
    local ok, err = pcall(pool.map, pool, spin, { 1, 2 }, 1)
    assert.is_false(ok)
    assert.equal("terminated", err.kind)
  end)
end)

describe("an error in a callback", function()
  leaks.watch(after_each, assert)

  it("is raised from the call that waits, as it is, and harms nothing else", function()
    tidemill.with(2, function(pool)
      for _, value in ipairs { "text", { 1 }, 42 } do
        local function raise() error(value, 0) end
        local good = pool:apply_async(identity, { "kept" }, { callback = raise })
        local ok, err = pcall(good.wait, good)
        assert.is_false(ok)
        assert.is_true(rawequal(value, err))
        assert.is_true(good:successful())
        assert.equal("kept", good:get())
        local bad = pool:apply_async(error, { "lost", 0 }, { error_callback = raise })
        ok, err = pcall(bad.get, bad)
        assert.is_false(ok)
        assert.is_true(rawequal(value, err))
        assert.equal("lost", select(2, bad:try()).value)
        assert.same(numbers(100), pool:map(identity, numbers(100), 7))
      end
    end)
  end)

  it("may be the very error of the work", function()
    tidemill.with(1, function(pool)
      local bad = pool:map_async(error, { "lost" }, { error_callback = function(err)
        error(err, 0)
      end })
      for _ = 1, 3 do
        local ok, err = pcall(bad.get, bad)
        assert.is_false(ok)
        assert.equal("task", err.kind)
      end
    end)
  end)

  it("leaves the others to the next call", function()
    tidemill.with(1, function(pool)
      local called, results = 0, {}
      for i = 1, 5 do
        results[i] = pool:apply_async(identity, { i }, { callback = function()
          called = called + 1
          error(i, 0)
        end })
      end
      assert.is_truthy(processes.eventually(30, function() return results[5]:ready() end))
      for i = 1, 5 do
        local ok, err = pcall(results[5].wait, results[5])
        assert.is_false(ok)
        assert.equal(i, err)
        assert.equal(i, called)
      end
      assert.equal(5, results[5]:get())
      assert.equal(5, called)
    end)
  end)

  it("comes out of a map that waits, and the map's work is not lost to others", function()
    tidemill.with(2, function(pool)
      pool:apply_async(identity, { 1 }, { callback = function() error("callback", 0) end })
      local ok, err
      assert.is_truthy(processes.eventually(30, function()
        ok, err = pcall(pool.map, pool, identity, numbers(50), 1)
        return not ok
      end))
      assert.equal("callback", err)
      assert.same(numbers(50), pool:map(identity, numbers(50), 1))
    end)
  end)

  it("comes out of a join, which may be called again", function()
    local pool = tidemill.pool(1)
    pool:apply_async(identity, { 1 }, { callback = function() error("callback", 0) end })
    pool:close()
    local ok, err = pcall(pool.join, pool)
    assert.is_false(ok)
    assert.equal("callback", err)
    assert.is_true(pool:join(30))
  end)
end)
