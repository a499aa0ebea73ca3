-- A call that every worker runs once.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised
local assert_alive = common.assert_alive

local function identity(x) return x end

describe("broadcast", function()
  leaks.watch(after_each, assert)

  local function pid_and(...) return { require "tidemill".worker().pid, ... } end

  it("runs once in every worker and returns the results", function()
    for _, workers in ipairs { 1, 2, 5 } do
      tidemill.with(workers, function(pool)
        for round = 1, 5 do
          local results = pool:broadcast(pid_and, round, nil, "x")
          assert.equal(workers, #results)
          local seen = {}
          for _, result in ipairs(results) do
            assert.is_nil(seen[result[1]])
            seen[result[1]] = true
            assert.same({ round, nil, "x" }, { result[2], result[3], result[4] })
          end
          for _, pid in ipairs(pool:workers()) do assert.is_true(seen[pid]) end
        end
      end)
    end
  end)

  it("reaches workers that are busy, after what they do", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local busy = pool:submit(files.pass, gate)
      local queued = pool:map_async(identity, numbers(1000), 1)
      pool:submit(function()
        files.nap(0.05)
        files.open(gate)
      end)
      local seen, count = {}, 0
      for _, result in ipairs(pool:broadcast(pid_and)) do
        if not seen[result[1]] then count = count + 1 end
        seen[result[1]] = true
      end
      assert.equal(2, count)
      busy:get()
      assert.same(numbers(1000), queued:get())
    end)
  end)

  it("sets what later work of every worker sees", function()
    tidemill.with(3, function(pool)
      pool:broadcast(function(value) SETTING = value end, 42) -- luacheck: ignore
      local results = pool:map(function() return SETTING end, numbers(60), 1) -- luacheck: ignore
      for i = 1, 60 do assert.equal(42, results[i]) end
    end)
  end)

  it("raises what f raises, and the death of a worker", function()
    tidemill.with(2, function(pool)
      raised("task", pool.broadcast, pool, error, "no")
      raised("worker", pool.broadcast, pool, os.exit, 3)
      assert_alive(pool)
      assert.equal(2, #pool:broadcast(pid_and))
    end)
  end)

  it("is done before what is given after it, in each worker", function()
    tidemill.with(2, function(pool)
      for round = 1, 20 do
        pool:broadcast(function(value) ROUND = value end, round) -- luacheck: ignore
        local seen = pool:map(function() return ROUND end, numbers(20), 1) -- luacheck: ignore
        for i = 1, 20 do assert.equal(round, seen[i]) end
      end
    end)
  end)

  it("is refused by a pool that is closed, and without a function", function()
    local pool = tidemill.pool(1)
    local ok, err = pcall(pool.broadcast, pool)
    assert.is_false(ok)
    assert.is_string(err)
    pool:close()
    raised("closed", pool.broadcast, pool, identity)
    assert.is_true(pool:join(30))
  end)

  it("fails when a worker it is to be tried in again is gone", function()
    local first, gate = files.gate(), files.gate()
    local pool = tidemill.pool { processes = 3, retry_errors = 1 }
    pool:apply_async(files.open, { first }, { callback = function()
      pool:resize(1)
      files.open(gate)
    end })
    files.pass(first)
    raised("worker", pool.broadcast, pool, function()
      files.pass(gate)
      if tidemill.worker().id == 3 then error "once more" end
    end)
    assert_alive(pool)
    pool:close()
    assert.is_true(pool:join(30))
  end)
end)
