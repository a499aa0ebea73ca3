-- Results one by one: their order and places, and what may go on beside them.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised

local function identity(x) return x end

--- An iterator over 1 .. count, which must not be asked again after its end.
local function counter(count)
  local n, ended = 0, false
  return function()
    assert(not ended, "asked again after its end")
    n = n + 1
    ended = n > count
    return not ended and n or nil
  end
end

--- All that a stream yields, by place, each once.
local function gather(stream)
  local values, count = {}, 0
  for i, value in stream do
    assert.is_nil(values[i])
    values[i] = { value }
    count = count + 1
  end
  for i, box in pairs(values) do values[i] = box[1] end
  return values, count
end

local ordered = { imap = true, istarmap = true }

local function each_method(act)
  for _, method in ipairs { "imap", "imap_unordered" } do act(method) end
end

describe("a stream", function()
  leaks.watch(after_each, assert)

  it("yields places and values in input order, whatever the workers and chunks", function()
    local expected = {}
    for i = 1, 700 do expected[i] = i * 3 end
    for _, workers in ipairs { 1, 2, 5 } do
      tidemill.with(workers, function(pool)
        for _, chunk in ipairs { false, 1, 7, 256, 5000 } do
          local options = { chunksize = chunk or nil }
          for _, items in ipairs { numbers(700), tidemill.range(1, 700), (counter(700)) } do
            local place = 0
            for i, value in pool:imap("x -> x * 3", items, options) do
              place = place + 1
              assert.equal(place, i)
              assert.equal(expected[i], value)
            end
            assert.equal(700, place)
          end
        end
      end)
    end
  end)

  it("without order yields every item once, with its place", function()
    tidemill.with(3, function(pool)
      for _, chunk in ipairs { false, 1, 7, 5000 } do
        local options = { chunksize = chunk or nil }
        for _, items in ipairs { numbers(700), tidemill.range(1, 700), (counter(700)) } do
          local values, count = gather(pool:imap_unordered(identity, items, options))
          assert.equal(700, count)
          assert.same(numbers(700), values)
        end
      end
    end)
  end)

  it("without order yields first what is done first", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local stream = pool:imap_unordered(function(x)
        if x == "slow" then files.pass(gate) end
        return x
      end, { "slow", "a", "b" }, 1)
      local places = { (stream:next()), (stream:next()) }
      table.sort(places)
      assert.same({ 2, 3 }, places)
      files.open(gate)
      assert.same({ 1, "slow" }, { stream:next() })
      assert.is_nil(stream:next())
    end)
  end)

  it("with order holds back what comes after", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local stream = pool:imap(function(x)
        if x == 1 then files.pass(gate) end
        return x
      end, { 1, 2, 3 }, 1)
      raised("timeout", stream.next, stream, 0.05)
      files.open(gate)
      assert.same(numbers(3), (gather(stream)))
    end)
  end)

  it("unpacks items, with order and without", function()
    tidemill.with(2, function(pool)
      local items = {}
      for i = 1, 100 do items[i] = { i, nil, i, n = 3 } end
      local function add(a, b, c) return b == nil and a + c end
      for _, method in ipairs { "istarmap", "istarmap_unordered" } do
        local place = 0
        for i, value in pool[method](pool, add, items, 7) do
          place = place + 1
          assert.equal(2 * i, value)
          if ordered[method] then assert.equal(place, i) end
        end
        assert.equal(100, place)
      end
    end)
  end)

  it("of nothing ends at once, and stays ended", function()
    tidemill.with(1, function(pool)
      for _, items in ipairs { {}, tidemill.range(1, 0), function() end } do
        for _, method in ipairs { "imap", "imap_unordered", "istarmap", "istarmap_unordered" } do
          local stream = pool[method](pool, identity, items, 1)
          for _ = 1, 3 do assert.is_nil(stream:next(10)) end
          for _ in stream do error "nothing is there" end
        end
      end
    end)
  end)

  it("gives nil after its end, again and again", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local stream = pool[method](pool, identity, numbers(10))
        assert.equal(10, select(2, gather(stream)))
        for _ = 1, 3 do
          assert.equal(0, select("#", stream:next()) - 1)
          assert.is_nil(stream())
        end
      end)
    end)
  end)

  it("may be taken by next and by loops in turns", function()
    tidemill.with(2, function(pool)
      local stream = pool:imap(identity, numbers(100), 3)
      assert.same({ 1, 1 }, { stream:next() })
      for i in stream do
        if i == 50 then break end
      end
      assert.same({ 51, 51 }, { stream() })
      assert.same({ 52, 52 }, { stream:next(10) })
      assert.equal(48, select(2, gather(stream)))
    end)
  end)

  it("keeps the place of nil and false results", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 7, 1000 } do
        each_method(function(method)
          local results, count = {}, 0
          for i, value in pool[method](pool, function(x)
            if x % 3 == 1 then return x end
            if x % 3 == 2 then return false end
          end, numbers(300), chunk) do
            results[i] = { value }
            count = count + 1
          end
          assert.equal(300, count)
          for i = 1, 300 do
            local expected = nil
            if i % 3 == 1 then expected = i elseif i % 3 == 2 then expected = false end
            assert.equal(expected, results[i][1])
          end
        end)
      end
    end)
  end)

  it("follows results that change their type", function()
    local function changing(x)
      local kind = math.floor(x / 70) % 5
      if kind == 0 then return x end
      if kind == 1 then return "text " .. x end
      if kind == 2 then return x % 2 == 0 end
      if kind == 3 then return { x } end
    end
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 50, 2000 } do
        each_method(function(method)
          local values = gather(pool[method](pool, changing, tidemill.range(1, 1000), chunk))
          for i = 1, 1000 do assert.same(changing(i), values[i]) end
        end)
      end
    end)
  end)

  it("takes the lines of a file", function()
    local path = files.log()
    for i = 1, 500 do files.note(path, "line " .. i) end
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { false, 1, 7 } do
        local count = 0
        for i, length in pool:imap("line -> #line", io.lines(path), chunk or nil) do
          count = count + 1
          assert.equal(#("line " .. i), length)
        end
        assert.equal(500, count)
      end
    end)
    os.remove(path)
  end)

  it("holds as many results as its buffer says, however few were expected", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, items in ipairs { numbers(5000), tidemill.range(1, 5000), (counter(5000)) } do
          local stream = pool[method](pool, identity, items, { buffer = 3000, chunksize = 13 })
          local place, first = stream:next()
          for _ = 1, 20 do pool:map(identity, numbers(500), 1) end -- they come in meanwhile
          local values = gather(stream)
          assert.is_nil(values[place])
          values[place] = first
          assert.same(numbers(5000), values)
        end
      end)
    end)
  end)

  it("carries results larger than all that is in flight otherwise", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local sum = 0
        for i, text in pool[method](pool, function(x)
          return string.char(x):rep(x % 10 == 0 and 8e6 or 2e5)
        end, numbers(60), { buffer = 40 }) do
          assert.equal(i % 10 == 0 and 8e6 or 2e5, #text)
          assert.equal(i, text:byte(-1))
          sum = sum + 1
        end
        assert.equal(60, sum)
      end)
    end)
  end)

  it("leaves the pool free for other calls in the loop", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local count = 0
        for i, value in pool[method](pool, identity, counter(60), 3) do
          count = count + 1
          assert.equal(i, value)
          assert.equal(2 * i, pool:apply("x -> 2 * x", { i }))
          if i % 10 == 0 then assert.same(numbers(100), pool:map(identity, numbers(100), 9)) end
          if i % 20 == 0 then
            assert.equal(30, select(2, gather(pool:imap(identity, counter(30)))))
          end
        end
        assert.equal(60, count)
      end)
    end)
  end)

  it("leaves the pool free for other calls in the generator", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local n = 0
        local function generate()
          n = n + 1
          if n <= 60 then return pool:apply("x -> x + 1000", { n }) end
        end
        local values, count = gather(pool[method](pool, "x -> x - 1000", generate, 3))
        assert.equal(60, count)
        assert.same(numbers(60), values)
      end)
    end)
  end)

  it("may be the input of another", function()
    tidemill.with(2, function(pool)
      local inner = pool:imap("x -> 2 * x", counter(200), { chunksize = 3, buffer = 20 })
      local function values()
        local _, value = inner:next()
        return value
      end
      local count = 0
      for i, value in pool:imap("x -> x + 1", values, { chunksize = 5, buffer = 10 }) do
        count = count + 1
        assert.equal(2 * i + 1, value)
      end
      assert.equal(200, count)
    end)
  end)

  it("goes on beside others on the same pool", function()
    tidemill.with(2, function(pool)
      local streams = {}
      for k = 1, 8 do
        streams[k] = pool:imap(function(x) return x * k end, k % 2 == 0 and numbers(300)
          or counter(300), { chunksize = k, buffer = 10 * k })
      end
      for i = 1, 300 do
        for k, stream in ipairs(streams) do assert.same({ i, i * k }, { stream:next() }) end
      end
      for _, stream in ipairs(streams) do assert.is_nil(stream:next()) end
    end)
  end)

  it("waits no longer than it is told, and loses nothing", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local gate = files.gate()
        local stream = pool[method](pool, function(x)
          files.pass(gate)
          return x
        end, numbers(20), 2)
        for _, timeout in ipairs { 0, -1, 0.01, 0.05 } do
          local before = processes.clock()
          raised("timeout", stream.next, stream, timeout)
          assert.is_true(processes.clock() - before >= timeout)
        end
        files.open(gate)
        assert.same(numbers(20), (gather(stream)))
      end)
    end)
  end)

  it("counts a range in fractions as map does, wherever its windows end", function()
    tidemill.with(2, function(pool)
      local range = tidemill.range(0, 3000, 0.1)
      local expected = {}
      for i = 1, range.count do expected[i] = (i - 1) * 0.1 end
      local seeded = tidemill.pool { processes = 2, seed = 1 }
      for _, workers in ipairs { pool, seeded } do
        assert.same(expected, workers:map(identity, range))
        for i, value in workers:imap(identity, range) do assert.equal(expected[i], value) end
      end
      seeded:terminate()
      assert.equal(expected[#expected], pool:mapreduce(identity, math.max, range))
    end)
  end)

  it("come when they are ready, however long those after them take", function()
    local gate = files.gate()
    tidemill.with(2, function(pool)
      pool:map(identity, numbers(2000), 1) -- so far, work has been short
      local stream = pool:imap(function(x)
        if x > 2 then files.pass(gate) end
        return x
      end, numbers(40), 1)
      for i = 1, 2 do assert.same({ i, i }, { stream:next(60) }) end
      files.open(gate)
      for i = 3, 40 do assert.same({ i, i }, { stream:next(60) }) end
    end)
  end)
end)
