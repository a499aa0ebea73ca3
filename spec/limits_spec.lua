-- Limits of time per item, and second chances: what is tried again, how often, and what never is.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised
local assert_alive = common.assert_alive

local LIMIT_S = 0.3 -- long for an item that does nothing, also on a busy machine

local function identity(x) return x end
local function spin() while true do end end

--- What runs too long, and in what: LuaJIT compiles the first two.
local function loops()
  return {
    { "a compiled loop", function(x) while x == 3 do end return x end },
    { "a loop over numbers", function(x)
      local n = 0
      while x == 3 do n = n + 1 end
      return x + n * 0
    end },
    { "a system call", function(x)
      if x == 3 then files.pass(os.tmpname()) end
      return x
    end },
    { "pcall", function(x)
      while x == 3 do pcall(spin) end
      return x
    end },
    { "a coroutine", function(x)
      if x == 3 then coroutine.wrap(spin)() end
      return { x }
    end },
  }
end

describe("a time limit", function()
  leaks.watch(after_each, assert)

  for _, case in ipairs(loops()) do
    local what, f = unpack(case)

    it("ends " .. what .. ", costs its item, and leaves the pool whole", function()
      tidemill.with(2, function(pool)
        local before = processes.clock()
        local err = raised("timeout", pool.map, pool, f, { 3 }, { timeout = LIMIT_S })
        assert.is_true(processes.clock() - before >= LIMIT_S)
        assert.equal(1, err.index)
        assert.equal(3, err.item)
        assert.is_number(err.pid)
        local results = pool:map(f, numbers(9), { timeout = LIMIT_S, errors = "collect",
          chunksize = 9 })
        for i = 1, 9 do
          if i == 3 then
            assert.equal("timeout", results[3].kind)
            assert.equal(3, results[3].index)
            assert.equal(1, results[3].attempts)
          else
            assert.same(what == "a coroutine" and { i } or i, results[i])
          end
        end
        assert_alive(pool)
        assert.is_truthy(processes.eventually(30, function() return #pool:workers() == 2 end))
      end)
    end)
  end

  it("holds in every method that runs work", function()
    local function work(x) if x == 3 then spin() end return x end
    local options = { timeout = LIMIT_S }
    local items, tuples = numbers(5), { { 1 }, { 2 }, { 3 }, { 4 } }
    tidemill.with(2, function(pool)
      raised("timeout", pool.starmap, pool, work, tuples, options)
      raised("timeout", pool.apply, pool, work, { 3 }, options)
      raised("timeout", pool.filter, pool, work, items, options)
      raised("timeout", pool.each, pool, work, items, options)
      raised("timeout", pool.mapreduce, pool, work, math.max, items, nil, options)
      for _, result in ipairs { pool:map_async(work, items, options),
        pool:starmap_async(work, tuples, options), pool:apply_async(work, { 3 }, options) } do
        raised("timeout", result.get, result, 60)
      end
      for _, method in ipairs { "imap", "imap_unordered" } do
        local stream = pool[method](pool, work, items, options)
        local failed, seen = 0, 0
        for _ = 1, 5 do
          local ok, place = pcall(stream.next, stream)
          if not ok then
            assert.equal("timeout", place.kind)
            assert.equal(3, place.index)
            failed = failed + 1
          elseif place then
            seen = seen + 1
          end
        end
        assert.equal(1, failed)
        assert.equal(4, seen)
        assert.is_nil(stream:next())
      end
      assert_alive(pool)
    end)
  end)

  it("is of an item, not of a chunk or a job", function()
    tidemill.with(1, function(pool)
      local before = processes.clock()
      pool:map(files.nap, { 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2 },
        { timeout = 2, chunksize = 12 })
      assert.is_true(processes.clock() - before > 2)
    end)
  end)

  it("does not run while an item waits for a worker", function()
    tidemill.with(1, function(pool)
      local gate = files.gate()
      local first = pool:submit(files.pass, gate)
      local second = pool:apply_async(identity, { 2 }, { timeout = LIMIT_S })
      assert.is_false(second:wait(2 * LIMIT_S))
      files.open(gate)
      first:get()
      assert.equal(2, second:get())
    end)
  end)

  it("may be the pool's, and another in a call", function()
    tidemill.with({ processes = 1, timeout = LIMIT_S }, function(pool)
      raised("timeout", pool.apply, pool, spin)
      raised("timeout", pool.map, pool, spin, { 1 })
      local submitted = pool:submit(spin)
      raised("timeout", submitted.get, submitted, 60)
      assert.is_nil((pool:apply(files.nap, { 2 * LIMIT_S }, { timeout = 60 })))
      assert_alive(pool)
    end)
  end)

  it("is of each job apart, side by side", function()
    tidemill.with(2, function(pool)
      local endless = pool:submit(spin)
      local limited = pool:apply_async(spin, {}, { timeout = LIMIT_S })
      raised("timeout", limited.get, limited, 60)
      assert.is_false(endless:ready())
      assert_alive(pool)
      assert.is_true(endless:cancel())
    end)
  end)

  it("ends a worker that was stopped", function()
    tidemill.with(1, function(pool)
      local log = files.log()
      local result = pool:apply_async(function()
        files.note(log, "begun")
        while true do files.nap(1) end
      end, {}, { timeout = LIMIT_S })
      files.await(log, 1)
      processes.kill(pool:workers()[1], processes.SIGSTOP)
      raised("timeout", result.get, result, 60)
      assert_alive(pool)
      os.remove(log)
    end)
  end)

  it("may pass for many items at once", function()
    tidemill.with(4, function(pool)
      local results = pool:map(function(x)
        if x % 2 == 0 then spin() end
        return x
      end, numbers(16), { timeout = LIMIT_S, errors = "collect", chunksize = 5 })
      for i = 1, 16 do
        if i % 2 == 0 then assert.equal("timeout", results[i].kind)
        else assert.equal(i, results[i]) end
      end
    end)
  end)
end)

describe("retries", function()
  leaks.watch(after_each, assert)

  it("run an item again whose worker died, until it succeeds", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      local results = pool:map(function(x)
        local try = files.try(log, x)
        if x % 10 == 5 and try <= 2 then os.exit(1) end
        return { x, try }
      end, numbers(40), { retries = 2, chunksize = 8 })
      for i = 1, 40 do assert.same({ i, i % 10 == 5 and 3 or 1 }, results[i]) end
    end)
    local tries = files.tally(log)
    for i = 1, 40 do assert.equal(i % 10 == 5 and 3 or 1, tries[tostring(i)]) end
    os.remove(log)
  end)

  it("run an item again that raised, until it succeeds", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      for round, chunk in ipairs { 1, 8, 100 } do
        local results = pool:map(function(x)
          local try = files.try(log, round .. "." .. x)
          if x % 10 == 5 and try <= 2 then error "not yet" end
          return x
        end, numbers(40), { retry_errors = 2, chunksize = chunk })
        assert.same(numbers(40), results)
        local tries = files.tally(log)
        for i = 1, 40 do
          assert.equal(i % 10 == 5 and 3 or 1, tries[round .. "." .. i])
        end
      end
    end)
    os.remove(log)
  end)

  it("run an item again that took too long", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      assert.same({ 1, 2, 3 }, pool:map(function(x)
        if files.try(log, x) == 1 and x == 2 then spin() end
        return x
      end, { 1, 2, 3 }, { retries = 1, timeout = LIMIT_S }))
    end)
    os.remove(log)
  end)

  it("come to an end, and say how often it was tried", function()
    local log = files.log()
    tidemill.with(2, function(pool)
      for count = 0, 3 do
        local err = raised("worker", pool.map, pool, function(x)
          files.note(log, "died" .. count)
          os.exit(x)
        end, { 4 }, { retries = count })
        assert.equal(count + 1, err.attempts)
        assert.equal(4, err.exitcode)
        assert.equal(1, err.index)
        err = raised("task", pool.map, pool, function()
          files.note(log, "raised" .. count)
          error "no"
        end, { 4 }, { retry_errors = count })
        assert.equal(count + 1, err.attempts)
        local tries = files.tally(log)
        assert.equal(count + 1, tries["died" .. count])
        assert.equal(count + 1, tries["raised" .. count])
      end
    end)
    os.remove(log)
  end)

  it("are counted apart for errors and for deaths", function()
    local log = files.log()
    tidemill.with(1, function(pool)
      local err = raised("task", pool.apply, pool, error, { "no" }, { retries = 5 })
      assert.equal(1, err.attempts)
      err = raised("worker", pool.apply, pool, os.exit, { 1 }, { retry_errors = 5 })
      assert.equal(1, err.attempts)
      -- dies, raises, dies, raises, succeeds
      local function work(name)
        local try = files.try(log, name)
        if try % 2 == 1 and try < 5 then os.exit(1) end
        if try < 5 then error "no" end
        return try
      end
      assert.equal(5, pool:apply(work, { "a" }, { retries = 2, retry_errors = 2 }))
      err = raised("worker", pool.apply, pool, work, { "b" }, { retries = 1, retry_errors = 2 })
      assert.equal(3, err.attempts)
      err = raised("task", pool.apply, pool, work, { "c" }, { retries = 2, retry_errors = 1 })
      assert.equal(4, err.attempts)
    end)
    os.remove(log)
  end)

  it("hold in every method that runs work", function()
    local log = files.log()
    local round = 0
    tidemill.with(2, function(pool)
      for _, failure in ipairs { "raise", "exit" } do
        local options = { retries = 1, retry_errors = 1, chunksize = 3 }
        local function work()
          round = round + 1
          local name = failure .. round
          return function(x)
            if files.try(log, name .. "." .. x) == 1 and x % 4 == 2 then
              if failure == "exit" then os.exit(1) else error "not yet" end
            end
            return x
          end
        end
        local tuples = {}
        for i = 1, 12 do tuples[i] = { i } end
        assert.same(numbers(12), pool:starmap(work(), tuples, options))
        assert.same(numbers(12), pool:map_async(work(), numbers(12), options):get())
        assert.equal(2, pool:apply(work(), { 2 }, options))
        assert.same(numbers(12), pool:filter(work(), numbers(12), options))
        assert.equal(12, pool:each(work(), numbers(12), options))
        assert.equal(78, pool:mapreduce(work(), "a, b -> a + b", numbers(12), nil, options))
        for _, method in ipairs { "imap", "imap_unordered" } do
          local sum = 0
          for i, value in pool[method](pool, work(), numbers(12), options) do
            assert.equal(i, value)
            sum = sum + value
          end
          assert.equal(78, sum)
        end
      end
    end)
    os.remove(log)
  end)

  it("of many items at once end with the first that has none left", function()
    tidemill.with(2, function(pool)
      local items = {}
      for i = 1, 300 do items[i] = "x" .. i end
      for _ = 1, 30 do
        local ok, err = pcall(pool.map, pool, function(x)
          if tonumber(x:sub(2)) % 3 == 0 then error "no" end
          return x
        end, items, { chunksize = 10, retry_errors = 1 })
        assert.is_false(ok)
        assert.equal("task", err.kind)
        assert.equal(2, err.attempts)
      end
      assert.same(items, pool:map(function(x) return x end, items))
    end)
  end)

  it("never run again what was finished, whoever is killed", function()
    local log = files.log()
    local random = require "support.values".generator(os.time())
    tidemill.with(3, function(pool)
      for round = 1, 12 do
        io.open(log, "w"):close()
        local chunk = ({ 1, 5, 40 })[round % 3 + 1]
        local column = round % 2 == 0
        local result = pool:map_async(function(x)
          files.note(log, "begun " .. x)
          files.note(log, "done " .. x)
          return column and x or { x }
        end, numbers(120), { chunksize = chunk, retries = 100 })
        for _ = 1, 3 do
          result:wait(random(100) / 50000)
          local pids = pool:workers()
          if #pids > 0 then processes.kill(pids[random(#pids)], processes.SIGKILL) end
        end
        local results, again = result:get(60), 0
        local tally = files.tally(log)
        for i = 1, 120 do
          assert.same(column and i or { i }, results[i])
          assert.is_true(tally["done " .. i] >= 1)
          again = again + tally["begun " .. i] - 1
        end
        assert.is_true(again <= 3, again) -- the items in hand
      end
    end)
    os.remove(log)
  end)

  it("are refused if they make no sense", function()
    tidemill.with(1, function(pool)
      for _, options in ipairs { { retries = -1 }, { retries = 0.5 }, { retries = "1" },
        { retry_errors = -1 }, { timeout = 0 }, { timeout = -1 }, { timeout = "1" },
        { timeout = 0 / 0 }, { buffer = 0 }, { chunksize = 0 } } do
        local ok, err = pcall(pool.map, pool, identity, { 1 }, options)
        assert.is_false(ok)
        assert.is_string(err)
        ok, err = pcall(tidemill.pool, options)
        assert.is_false(ok)
        assert.is_string(err)
      end
    end)
  end)
end)
