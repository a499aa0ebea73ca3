local crowd = require "support.crowd"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local function never_ends() while true do end end

--- A process that has `lock` until it is killed; returns when it has.
local function holder(lock)
  local up = tidemill.event()
  local process = tidemill.process(function()
    lock:acquire()
    up:set()
    never_ends()
  end)
  process:start()
  assert(up:wait(60))
  return process
end

for _, kind in ipairs { "lock", "rlock" } do
  describe("tidemill." .. kind, function()
    leaks.watch(after_each, assert)

    it("is acquired and released", function()
      local lock = tidemill[kind]()
      assert.is_false(lock:is_held())
      assert.is_true(lock:acquire())
      assert.is_true(lock:is_held())
      lock:release()
      assert.is_false(lock:is_held())
      assert.has_error(function() lock:release() end,
        "lock:release: this process does not have it")
    end)

    it("is another's while that has it", function()
      local lock = tidemill[kind]()
      local process = holder(lock)
      assert.is_false(lock:acquire(0))
      assert.is_false(lock:acquire(false))
      local seconds, acquired = crowd.time(lock.acquire, lock, 0.1)
      assert.is_false(acquired)
      assert.is_true(seconds >= 0.1)
      assert.has_error(function() lock:release() end,
        "lock:release: this process does not have it")
      process:kill()
      process:join()
    end)

    it("is released by the death of its owner, and the next one is told", function()
      local lock = tidemill[kind]()
      local process = holder(lock)
      process:kill()
      assert.same({ true, "abandoned" }, { lock:acquire() })
      lock:release()
      assert.same({ true }, { lock:acquire() })
      lock:release()
      process:join()
    end)

    it("lets one of those who wait go on when its owner dies", function()
      local lock = tidemill[kind]()
      local process = holder(lock)
      local waiting = crowd.start(3, function()
        local acquired, state = lock:acquire()
        lock:release()
        return { acquired, state }
      end)
      process:kill()
      process:join()
      local told = 0
      for _, result in ipairs(crowd.finish(waiting)) do
        assert.is_true(result[1])
        if result[2] == "abandoned" then told = told + 1 end
      end
      assert.equal(1, told)
    end)

    it("runs a function with it, and is released whatever that does", function()
      local lock = tidemill[kind]()
      assert.same({ 1, nil, 3 }, { lock:with(function()
        assert.is_true(lock:is_held())
        return 1, nil, 3
      end) })
      assert.is_false(lock:is_held())
      local ok, err = pcall(lock.with, lock, function() error { code = 7 } end)
      assert.is_false(ok)
      assert.same({ code = 7 }, err)
      assert.is_false(lock:is_held())
    end)

    it("keeps what it protects whole", function()
      local lock, counter = tidemill[kind](), tidemill.dict()
      counter:set("n", 0)
      crowd.run(3, function()
        for _ = 1, 100 do
          lock:with(function() counter:set("n", counter:get "n" + 1) end)
        end
      end)
      assert.equal(300, counter:get "n")
    end)

    it("goes to pools, also in tables and upvalues, and comes back as itself", function()
      local lock = tidemill[kind]()
      tidemill.with(2, function(pool)
        local function work(box)
          assert(box.lock == lock)
          return lock:with(function() return box.lock end)
        end
        for _, result in ipairs(pool:map(work, { { lock = lock }, { lock = lock } })) do
          assert.equal(lock, result)
        end
      end)
      assert.is_true(lock:acquire(0))
      lock:release()
    end)

    it("refuses what it does not know", function()
      local lock = tidemill[kind]()
      assert.has_error(function() lock.acquire() end, "lock:acquire: call it with a colon")
      assert.has_error(function() lock:with(1) end, "lock:with: fn must be a function, got 1")
      local process = holder(lock)
      assert.has_error(function() lock:acquire "soon" end,
        "lock:acquire: timeout must be a number of seconds, got 'soon'")
      process:kill()
      process:join()
    end)

    it("survives its owners' being killed at any instant", function()
      local lock, shared = tidemill[kind](), tidemill.dict()
      shared:set("a", 0)
      shared:set("b", 0)
      local function work(rounds)
        for _ = 1, rounds do
          lock:acquire()
          local n = shared:get "a"
          shared:set("a", n + 1)
          shared:set("b", n + 1)
          lock:release()
        end
        return true
      end
      for _ = 1, crowd.rounds do
        local steady = crowd.start(2, function(_, ...) return work(...) end, 300)
        for i = 1, 5 do crowd.kill_after(i * 0.002, work, 1e9) end
        crowd.finish(steady)
        lock:acquire()
        assert.is_true(math.abs(shared:get "a" - shared:get "b") <= 1)
        lock:release()
      end
    end)
  end)
end

describe("tidemill.lock", function()
  it("does not wait for itself", function()
    local lock = tidemill.lock()
    lock:acquire()
    assert.is_false(lock:acquire(0))
    assert.is_false(lock:acquire(0.01))
    assert.has_error(function() lock:acquire() end, "lock:acquire: this process has it already")
    lock:release()
  end)

  it("is released when its last handle here goes with the process's state", function()
    local lock = tidemill.lock()
    crowd.run(1, function() lock:acquire() end)
    assert.is_true(lock:acquire(10))
    lock:release()
  end)
end)

describe("tidemill.rlock", function()
  it("is free after as many releases", function()
    local lock = tidemill.rlock()
    for _ = 1, 3 do assert.is_true(lock:acquire()) end
    for i = 1, 3 do
      assert.is_true(lock:is_held(), i)
      lock:release()
    end
    assert.is_false(lock:is_held())
    assert.has_error(function() lock:release() end,
      "lock:release: this process does not have it")
  end)

  it("is abandoned as a whole", function()
    local lock = tidemill.rlock()
    local process = tidemill.process(function()
      lock:acquire()
      lock:acquire()
      processes.kill(processes.self(), 9)
    end)
    process:start()
    process:join()
    assert.same({ true, "abandoned" }, { lock:acquire() })
    lock:release()
    assert.is_false(lock:is_held())
  end)
end)
