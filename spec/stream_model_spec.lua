-- Several streams at once in any interleaving, and under fire, against a model.

local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local values = require "support.values"
local tidemill = require "tidemill"

local numbers = common.numbers

local function identity(x) return x end

local function counter(count)
  local n = 0
  return function()
    if n == count then return nil end
    n = n + 1
    return n
  end
end

local function drop()
  collectgarbage()
  collectgarbage()
end

describe("streams", function()
  leaks.watch(after_each, assert)

  -- A stream and what is to come of it.
  local function start(pool, random)
    local model = {
      ordered = random(2) == 1, total = random(120) - 1, collect = random(2) == 1, taken = 0,
      bad = random(5) + 1, seen = {},
    }
    local bad = model.bad
    local items = ({ numbers(model.total), tidemill.range(1, model.total),
      counter(model.total) })[random(3)]
    model.stream = pool[model.ordered and "imap" or "imap_unordered"](pool, function(x)
      if x % 7 == bad then error(x, 0) end
      if x % 7 == 0 then return nil end
      return x % 2 == 0 and { x } or x
    end, items, {
      chunksize = random(3) > 1 and random(20) or nil, buffer = random(3) > 1 and random(40) or nil,
      errors = model.collect and "collect" or "raise",
    })
    return model
  end

  local function check_value(model, place, value, err)
    assert.is_nil(model.seen[place])
    model.seen[place] = true
    model.taken = model.taken + 1
    if model.ordered then assert.equal(model.taken, place) end
    if place % 7 == model.bad then
      assert.equal(place, err.index)
      assert.is_nil(value)
    elseif place % 7 == 0 then
      assert.is_nil(value)
    else
      assert.same(place % 2 == 0 and { place } or place, value)
    end
  end

  --- Take one result; true at the end.
  local function step(model, timeout)
    local ok, place, value, err = pcall(model.stream.next, model.stream, timeout)
    if not ok then
      assert.is_true(tidemill.is_error(place), tostring(place))
      if place.kind == "timeout" then return false end
      assert.is_false(model.collect)
      check_value(model, place.index, nil, place)
    elseif place then
      check_value(model, place, value, err)
    else
      assert.equal(model.total, model.taken)
      return true
    end
  end

  it("in any interleaving are as a model says", function()
    local seed = os.time()
    local random = values.generator(seed)
    local function round(pool)
      local models = {}
      for _ = 1, 200 do
        local act = random(12)
        local at = #models > 0 and random(#models)
        if not at or act == 1 and #models < 10 then
          models[#models + 1] = start(pool, random)
        elseif act == 2 then
          models[at].stream:close()
          assert.is_nil(models[at].stream:next())
          table.remove(models, at)
        elseif act == 3 then
          table.remove(models, at) -- dropped
          if random(5) == 1 then drop() end
        elseif act == 4 then
          assert.same(numbers(50), pool:map(identity, numbers(50), random(10)))
        elseif step(models[at], ({ [5] = 0, [6] = 0.001 })[act]) then
          table.remove(models, at)
        end
      end
      for _, model in ipairs(models) do
        if random(2) == 1 then repeat until step(model) end
      end
    end
    for workers = 1, 3 do
      for _ = 1, 12 do
        local pool = tidemill.pool(workers)
        local ok, err = pcall(round, pool)
        pool:close()
        local ended = pool:join(30)
        pool:terminate()
        assert.is_true(ok, ("seed %d: %s"):format(seed, tostring(err)))
        assert.is_true(ended, ("seed %d: the join does not end"):format(seed))
      end
    end
  end)

  it("survive workers that are killed from outside", function()
    tidemill.with(2, function(pool)
      for _, method in ipairs { "imap", "imap_unordered" } do
        local lost, count = 0, 0
        local stream = pool[method](pool, identity, counter(2000), { chunksize = 5 })
        while true do
          local ok, place = pcall(stream.next, stream, 60)
          if ok and not place then break end
          count = count + 1
          if not ok then
            assert.equal("worker", place.kind)
            lost = lost + 1
          end
          local pids = count % 200 == 100 and pool:workers() or {}
          if #pids > 0 then processes.kill(pids[1], processes.SIGKILL) end
        end
        assert.equal(2000, count)
        assert.is_true(lost <= 10)
      end
    end)
  end)
end)
