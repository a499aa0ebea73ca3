-- Random numbers: with a seed every item has its own, whatever runs it; without, workers differ.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local numbers = common.numbers

local function draw() return math.random() end
local function draw_many() return { math.random(), math.random(100), math.random(-5, 5) } end

--- What a fresh pool gives for its first job.
local function first_job(seed, f, count, workers, options)
  return tidemill.with({ processes = workers or 2, seed = seed }, function(pool)
    return pool:map(f, numbers(count), options)
  end)
end

local function distinct(list)
  local seen, count = {}, 0
  for _, value in ipairs(list) do
    if not seen[value] then count = count + 1 end
    seen[value] = true
  end
  return count
end

describe("a seed", function()
  leaks.watch(after_each, assert)

  it("gives items the same numbers, whatever the workers and chunks", function()
    for _, f in ipairs { draw, draw_many, function(x) return x + math.random(1000) end } do
      local expected = first_job(42, f, 200, 1, 1)
      for workers = 1, 5 do
        for _, chunk in ipairs { false, 1, 2, 7, 64, 1000 } do
          assert.same(expected, first_job(42, f, 200, workers, chunk or nil))
        end
      end
    end
  end)

  it("gives every method's items the same whatever the chunks", function()
    local function calls(workers, chunk)
      local found = {}
      tidemill.with({ processes = workers, seed = 7 }, function(pool)
        local items, tuples = numbers(100), {}
        for i = 1, 100 do tuples[i] = { i } end
        local function add(list) for _, value in ipairs(list) do found[#found + 1] = value end end
        add(pool:map(draw, items, chunk))
        add(pool:starmap(draw, tuples, chunk))
        add(pool:map_async(draw, items, chunk):get())
        add { pool:apply(draw), pool:submit(draw):get() }
        for _, method in ipairs { "imap", "imap_unordered" } do
          local values = {}
          for i, value in pool[method](pool, draw, items, chunk) do values[i] = value end
          add(values)
        end
        add(pool:map(draw, tidemill.range(1, 100), chunk))
        add { pool:mapreduce(draw, math.max, items, nil, chunk) }
        add(pool:filter(function() return math.random() < 0.5 end, items, chunk))
      end)
      return found
    end
    local expected = calls(1, 1)
    for _, case in ipairs { { 1, 100 }, { 2, 3 }, { 3, 7 }, { 2 } } do
      assert.same(expected, calls(case[1], case[2]))
    end
  end)

  it("gives a lazy input's items the same as a table's", function()
    local expected = first_job(5, draw, 300)
    tidemill.with({ processes = 2, seed = 5 }, function(pool)
      local n = 0
      local results = pool:map(draw, function()
        n = n + 1
        if n <= 300 then return n end
      end, 7)
      assert.same(expected, results)
    end)
  end)

  it("gives an item the same when it is run again", function()
    local function work(log, death)
      return function(x)
        local value = math.random()
        if x % 10 == 5 and files.try(log, x) == 1 then
          if death then os.exit(1) end
          error "not yet"
        end
        return { value, math.random() }
      end
    end
    local expected = first_job(9, function() return { math.random(), math.random() } end, 60)
    for _, death in ipairs { false, true } do
      for _, chunk in ipairs { 1, 8, 100 } do
        local log = files.log()
        assert.same(expected, first_job(9, work(log, death), 60, 2,
          { chunksize = chunk, retries = 1, retry_errors = 1 }))
        os.remove(log)
      end
    end
  end)

  it("gives items the same in workers that replace others", function()
    local expected = first_job(3, draw, 100)
    tidemill.with({ processes = 2, seed = 3, maxtasksperchild = 4 }, function(pool)
      assert.same(expected, pool:map(draw, numbers(100), 7))
    end)
  end)

  it("leaves an item alone, whatever the others do", function()
    local expected = first_job(11, draw, 100)
    local results = first_job(11, function(x)
      local value = math.random()
      if x % 3 == 0 then for _ = 1, x do math.random() end end
      if x % 5 == 0 then math.randomseed(x) end
      return value
    end, 100, 1, 100)
    assert.same(expected, results)
  end)

  it("holds for math.random however a function gets it", function()
    local random = math.random
    local expected = first_job(13, draw, 50)
    assert.same(expected, first_job(13, function() return random() end, 50))
    assert.same(expected, first_job(13, "() -> math.random()", 50))
    assert.same(expected, first_job(13, function()
      return require "math".random()
    end, 50))
  end)

  it("is not disturbed by an initializer", function()
    local expected = first_job(17, draw, 50)
    local options = { processes = 2, seed = 17, initializer = function()
      math.randomseed(os.time())
      math.random()
    end }
    tidemill.with(options, function(pool)
      assert.same(expected, pool:map(draw, numbers(50), 3))
    end)
  end)

  it("gives items, jobs and other seeds other numbers", function()
    local all = {}
    for seed = 1, 20 do
      tidemill.with({ processes = 2, seed = seed }, function(pool)
        for _ = 1, 5 do
          for _, value in ipairs(pool:map(draw, numbers(50))) do all[#all + 1] = value end
        end
      end)
    end
    assert.equal(5000, #all)
    assert.equal(5000, distinct(all))
    local sum = 0
    for _, value in ipairs(all) do
      assert.is_true(value >= 0 and value < 1)
      sum = sum + value
    end
    assert.is_true(math.abs(sum / 5000 - 0.5) < 0.025) -- six deviations of such a mean
  end)

  it("makes no neighbours alike", function()
    local values = first_job(1, draw, 4000)
    local previous, product, low = nil, 0, 0
    for _, value in ipairs(values) do
      if value < 0.25 then low = low + 1 end
      if previous then product = product + (value - 0.5) * (previous - 0.5) end
      previous = value
    end
    assert.is_true(math.abs(product / 3999 * 12) < 0.1) -- a correlation; six deviations
    assert.is_true(math.abs(low - 1000) < 165)
  end)

  it("gives the same again in the same order of jobs", function()
    local function jobs(workers)
      return tidemill.with({ processes = workers, seed = 23 }, function(pool)
        local results = {}
        for k = 1, 10 do results[k] = pool:map_async(draw, numbers(20), k) end
        for k = 10, 1, -1 do results[k] = results[k]:get() end
        return results
      end)
    end
    assert.same(jobs(1), jobs(3))
  end)

  it("may be any whole number, and nothing else", function()
    local seen = {}
    for _, seed in ipairs { 0, -1, 1, 2 ^ 31, 2 ^ 32 + 1, 2 ^ 53, -2 ^ 53 } do
      local value = first_job(seed, draw, 1)[1]
      assert.equal(value, first_job(seed, draw, 1)[1])
      assert.is_nil(seen[value])
      seen[value] = true
    end
    for _, seed in ipairs { 0.5, "1", true, 0 / 0, 1 / 0 } do
      local ok, err = pcall(tidemill.pool, { seed = seed })
      assert.is_false(ok)
      assert.is_string(err)
    end
  end)
end)

describe("without a seed", function()
  leaks.watch(after_each, assert)

  it("pools, workers and their replacements draw different numbers", function()
    local all = {}
    for _ = 1, 3 do
      tidemill.with({ processes = 3, maxtasksperchild = 5 }, function(pool)
        for _, value in ipairs(pool:map(draw, numbers(100), 1)) do all[#all + 1] = value end
      end)
    end
    assert.equal(300, distinct(all))
  end)

  it("the script's own numbers are left alone", function()
    local function sequence(use)
      math.randomseed(99)
      local first = math.random()
      if use then
        tidemill.with({ processes = 2, seed = 1 }, function(pool) pool:map(draw, numbers(10)) end)
      end
      return { first, math.random(), math.random() }
    end
    assert.same(sequence(false), sequence(true))
  end)
end)
