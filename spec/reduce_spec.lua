-- More than map: filter, mapreduce, each.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised
local assert_alive = common.assert_alive

local function identity(x) return x end

local function iterator(items)
  local n = 0
  return function()
    n = n + 1
    return items[n]
  end
end

describe("filter", function()
  leaks.watch(after_each, assert)

  it("keeps the items for which f is true, in order, whatever the chunks", function()
    local expected = {}
    for i = 3, 1000, 3 do expected[#expected + 1] = i end
    for _, workers in ipairs { 1, 3 } do
      tidemill.with(workers, function(pool)
        for _, chunk in ipairs { false, 1, 7, 5000 } do
          for _, items in ipairs { numbers(1000), tidemill.range(1, 1000),
            iterator(numbers(1000)) } do
            assert.same(expected, pool:filter("x -> x % 3 == 0", items, chunk or nil))
          end
        end
      end)
    end
  end)

  it("keeps the script's own items", function()
    tidemill.with(2, function(pool)
      local items = {}
      for i = 1, 100 do items[i] = { i, self = identity } end
      local kept = pool:filter(function(item) return item[1] > 50 end, items, 9)
      assert.equal(50, #kept)
      for i = 1, 50 do assert.is_true(rawequal(items[50 + i], kept[i])) end
    end)
  end)

  it("takes any value for true but nil and false", function()
    tidemill.with(2, function(pool)
      local function f(x)
        if x == 1 then return 0 elseif x == 2 then return "" elseif x == 3 then return {}
        elseif x == 4 then return false elseif x == 5 then return nil
        elseif x == 6 then return coroutine.create(print) end -- does not travel, nor need it
        return true
      end
      assert.same({ 1, 2, 3, 6, 7 }, pool:filter(f, numbers(7), 3))
      assert.same({ "a", "c" }, pool:filter("s -> s ~= 'b'", { "a", "b", "c" }))
      assert.same({ true, true }, pool:filter(identity, { true, false, true }))
    end)
  end)

  it("of nothing, or keeping nothing, is empty", function()
    tidemill.with(1, function(pool)
      for _, items in ipairs { {}, tidemill.range(1, 0), iterator {} } do
        assert.same({}, pool:filter(identity, items))
      end
      assert.same({}, pool:filter("x -> nil", numbers(100)))
      assert.same({}, pool:filter("x -> false", tidemill.range(1, 100)))
    end)
  end)

  it("raises the first error, with its item", function()
    tidemill.with(2, function(pool)
      local function fail(x) if x == 30 then error "no" end return true end
      assert.equal(30, raised("task", pool.filter, pool, fail, numbers(50), 4).index)
      local function die(x) if x == 30 then os.exit(2) end return true end
      assert.equal(30, raised("worker", pool.filter, pool, die, numbers(50), 4).index)
      assert_alive(pool)
    end)
  end)
end)

--- The same sum without processes: pairs, pairs of pairs, and so on; then from the left.
local function pairwise(values, combine, init)
  local roots, sizes = {}, {}
  for _, value in ipairs(values) do
    local size = 1
    while sizes[#sizes] == size do
      value = combine(table.remove(roots), value)
      table.remove(sizes)
      size = size * 2
    end
    roots[#roots + 1], sizes[#sizes + 1] = value, size
  end
  local total = init
  for i, root in ipairs(roots) do
    if i == 1 and init == nil then total = root else total = combine(total, root) end
  end
  return total
end

describe("mapreduce", function()
  leaks.watch(after_each, assert)

  local function add(a, b) return a + b end
  local function join(a, b) return a .. b end

  it("folds tables, ranges and iterators", function()
    tidemill.with(3, function(pool)
      for _, chunk in ipairs { false, 1, 7, 5000 } do
        local options = { chunksize = chunk or nil }
        for _, items in ipairs { numbers(1000), tidemill.range(1, 1000),
          iterator(numbers(1000)) } do
          assert.equal(333833500,
            pool:mapreduce("x -> x * x", "a, b -> a + b", items, nil, options))
        end
      end
      assert.equal(1e6, pool:mapreduce("x -> 1", add, tidemill.range(1, 1e6)))
    end)
  end)

  it("keeps the order of the input, for combinations that mind it", function()
    for workers = 1, 4 do
      tidemill.with(workers, function(pool)
        for _, count in ipairs { 1, 2, 3, 5, 64, 257, 1000 } do
          local expected = table.concat(numbers(count), ",") .. ","
          for _, chunk in ipairs { false, 1, 2, 3, 7, 64, 5000 } do
            for _, items in ipairs { numbers(count), tidemill.range(1, count),
              iterator(numbers(count)) } do
              local text = pool:mapreduce(function(x) return x .. "," end, join, items, nil,
                { chunksize = chunk or nil })
              assert.equal(expected, text)
            end
          end
        end
      end)
    end
  end)

  it("puts init before all", function()
    tidemill.with(2, function(pool)
      assert.equal("init1234567", pool:mapreduce("x -> '' .. x", join, numbers(7), "init", 2))
      assert.equal(128, pool:mapreduce(identity, add, numbers(7), 100))
      assert.equal(false, pool:mapreduce(identity, function(a, b) return a and b end,
        { true, true }, false))
      local list = pool:mapreduce("x -> { x }", function(a, b)
        for _, x in ipairs(b) do a[#a + 1] = x end
        return a
      end, numbers(100), { 0 }, 9)
      assert.equal(101, #list)
      for i = 0, 100 do assert.equal(i, list[i + 1]) end
    end)
  end)

  it("of nothing is init, of one item its result", function()
    tidemill.with(2, function(pool)
      local function never() error "there is nothing to combine" end
      for _, items in ipairs { {}, tidemill.range(1, 0), iterator {} } do
        assert.is_nil(pool:mapreduce(identity, never, items))
        assert.equal(7, pool:mapreduce(identity, never, items, 7))
        assert.is_false(pool:mapreduce(identity, never, items, false))
      end
      assert.equal(4, pool:mapreduce("x -> 2 * x", never, { 2 }))
      assert.equal("a1", pool:mapreduce(identity, join, { 1 }, "a"))
    end)
  end)

  it("gives sums of floating-point numbers to the last bit, whatever does them", function()
    local items, random = {}, require "support.values".generator(7)
    for i = 1, 1777 do items[i] = (random(2 ^ 30) - 2 ^ 29) / 10 ^ random(12) end
    for _, count in ipairs { 3, 100, 1777 } do
      local some, boxed = {}, {}
      for i = 1, count do
        some[i] = items[i]
        boxed[i] = { items[i] }
      end
      local expected, with_init = pairwise(some, add), pairwise(some, add, 0.1)
      for workers = 1, 5 do
        tidemill.with(workers, function(pool)
          for _, chunk in ipairs { false, 1, 2, 3, 5, 16, 100, 999, 5000 } do
            local options = { chunksize = chunk or nil }
            assert.equal(expected, pool:mapreduce(identity, add, some, nil, options))
            assert.equal(expected, pool:mapreduce("t -> t[1]", add, boxed, nil, options))
            assert.equal(expected, pool:mapreduce(identity, add, iterator(some), nil, options))
            assert.equal(with_init, pool:mapreduce(identity, add, some, 0.1, options))
          end
        end)
      end
    end
  end)

  it("combines nil and false like any other value", function()
    tidemill.with(2, function(pool)
      local function f(x) if x % 2 == 0 then return x end end
      local function add_some(a, b) return (a or 0) + (b or 0) end
      for _, chunk in ipairs { 1, 7, 500 } do
        assert.equal(2550, pool:mapreduce(f, add_some, numbers(100), nil, chunk))
        assert.is_false(pool:mapreduce("x -> x ~= 70", "a, b -> a and b", numbers(100), nil, chunk))
      end
    end)
  end)

  it("combines large and many values", function()
    tidemill.with(2, function(pool)
      local text = pool:mapreduce(function(x) return string.char(x):rep(50000) end, join,
        numbers(100), nil, 7)
      assert.equal(5000000, #text)
      for i = 1, 100 do assert.equal(i, text:byte(i * 50000)) end
    end)
  end)

  it("raises what f raises, with its item", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 100 } do
        local err = raised("task", pool.mapreduce, pool, function(x)
          if x == 60 then error { code = x } end
          return x
        end, add, numbers(100), nil, chunk)
        assert.equal(60, err.index)
        assert.equal(60, err.item)
        assert.same({ code = 60 }, err.value)
        err = raised("worker", pool.mapreduce, pool, function(x)
          if x == 60 then os.exit(3) end
          return x
        end, add, numbers(100), nil, chunk)
        assert.equal(60, err.index)
        assert.equal(3, err.exitcode)
      end
      assert_alive(pool)
    end)
  end)

  it("raises what combine raises, wherever it runs", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 100 } do
        for _, items in ipairs { numbers(100), { "a", "b", "c" } } do
          local err = raised("task", pool.mapreduce, pool, identity, function()
            error({ "combine" }, 0)
          end, items, nil, chunk)
          assert.same({ "combine" }, err.value)
          assert.is_truthy(err.traceback:find("reduce_spec.lua:%d+"))
          if chunk == 100 then assert.equal(2, err.index) end -- the second item met the first
        end
      end
      local function fussy(a, b)
        if b == "init" or a == "init" then error "no init" end
        return b
      end
      raised("task", pool.mapreduce, pool, identity, fussy, { 1, 2 }, "init")
      assert_alive(pool)
    end)
  end)

  it("survives the death of workers, given retries", function()
    local log = files.log()
    tidemill.with(3, function(pool)
      for _, chunk in ipairs { 1, 7, 200 } do
        io.open(log, "w"):close()
        local text = pool:mapreduce(function(x)
          if x % 40 == 20 and files.try(log, x) == 1 then os.exit(1) end
          return x .. ","
        end, join, numbers(200), nil, { chunksize = chunk, retries = 1 })
        assert.equal(table.concat(numbers(200), ",") .. ",", text)
        assert.equal(10, #files.lines(log))
      end
    end)
    os.remove(log)
  end)

  it("goes on after tries that raised, in f and in combine", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 200 } do
        io.open(log, "w"):close()
        local sum = pool:mapreduce(function(x)
          if x % 40 == 20 and files.try(log, x) == 1 then error "not yet" end
          return x
        end, add, numbers(200), nil, { chunksize = chunk, retry_errors = 1 })
        assert.equal(20100, sum)
      end
    end)
    os.remove(log)
  end)

  it("refuses what it cannot use", function()
    tidemill.with(1, function(pool)
      for _, args in ipairs { { identity, nil, {} }, { nil, add, {} }, { identity, add, 5 },
        { identity, add, {}, nil, { chunk = 1 } }, { identity, "a b", {} },
        { identity, add, {}, nil, { errors = "collect" } } } do
        local ok, err = pcall(pool.mapreduce, pool, args[1], args[2], args[3], args[4], args[5])
        assert.is_false(ok)
        assert.is_string(err)
      end
    end)
  end)
end)

describe("each", function()
  leaks.watch(after_each, assert)

  it("runs every item once and returns how many there were", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { false, 1, 7, 5000 } do
        for _, items in ipairs { numbers(100), tidemill.range(1, 100), iterator(numbers(100)) } do
          io.open(log, "w"):close()
          assert.equal(100, pool:each(function(x) files.note(log, x) end, items, chunk or nil))
          local tally = files.tally(log)
          for i = 1, 100 do assert.equal(1, tally[tostring(i)]) end
        end
      end
      for _, items in ipairs { {}, tidemill.range(1, 0), iterator {} } do
        assert.equal(0, pool:each(identity, items))
      end
    end)
    os.remove(log)
  end)

  it("sends no results back, so that they need not travel", function()
    tidemill.with(2, function(pool)
      assert.equal(100, pool:each(function() return coroutine.create(print) end, numbers(100), 7))
      assert.equal(100, pool:each(function() return ("x"):rep(1e6) end, numbers(100), 7))
    end)
  end)

  it("raises the first error, with its item", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 100 } do
        local err = raised("task", pool.each, pool, function(x)
          if x == 30 then error "no" end
        end, numbers(60), chunk)
        assert.equal(30, err.index)
        err = raised("worker", pool.each, pool, function(x)
          if x == 30 then os.exit(1) end
        end, numbers(60), chunk)
        assert.equal(30, err.item)
      end
      assert_alive(pool)
    end)
  end)

  it("runs all if errors are collected, and tells which failed", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 100 } do
        local done, failures = pool:each(function(x)
          if x % 20 == 10 then error(x, 0) end
          if x % 20 == 0 then os.exit(1) end
        end, numbers(100), { chunksize = chunk, errors = "collect" })
        assert.equal(90, done)
        local kinds = {}
        for _, err in pairs(failures) do kinds[err.index] = err.kind end
        for i = 1, 100 do
          local expected = i % 20 == 10 and "task" or i % 20 == 0 and "worker" or nil
          assert.equal(expected, kinds[i])
        end
      end
      assert.equal(50, (pool:each(identity, numbers(50), { errors = "collect" })))
    end)
  end)
end)
