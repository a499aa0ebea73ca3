-- Every way to fail at every stage of a task: an error of the right kind within a deadline, all
-- other items delivered, and a pool that goes on.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers = common.numbers
local assert_alive = common.assert_alive

local DEADLINE_S = 60

local function identity(x) return x end

local acts = {
  { "raises", function() error "no" end },
  { "exits", function() os.exit(5) end, "exitcode", 5 },
  { "crashes", function() return require "ffi".cast("int *", 8)[0] end, "signal",
    processes.SIGSEGV },
  { "is killed", function()
    processes.kill(processes.self(), processes.SIGKILL)
    while true do files.nap(1) end
  end, "signal", processes.SIGKILL },
}

--- A value whose hooks are these functions, in a worker.
local function hooked(encode, decode)
  local function at_home() return 1 end
  return setmetatable({}, { __tidemill = {
    encode = function() return (require "tidemill".worker() and encode or at_home)() end,
    decode = function() return (require "tidemill".worker() and decode or at_home)() end,
  } })
end

local function one() return 1 end

--- The stages of a task at which `act` may happen: the items of which the fifth is bad, what runs,
--- and what a failure is that leaves the worker alive.
local function stages(act)
  local with_hook = numbers(9)
  with_hook[5] = hooked(one, act)
  return {
    { name = "while its argument is decoded", kind = "decode", items = with_hook, f = identity },
    { name = "while it runs", kind = "task", items = numbers(9), f = function(x)
      if x == 5 then act() end
      return x
    end },
    { name = "while its result is encoded", kind = "encode", items = numbers(9), f = function(x)
      return x == 5 and { { hooked(act, one) } } or x
    end },
    { name = "while its error is encoded", kind = "task", items = numbers(9), f = function(x)
      if x == 5 then error { { hooked(act, one) } } end
      return x
    end },
  }
end

local function check_failure(err, kind, field, value)
  assert.is_true(tidemill.is_error(err), tostring(err))
  assert.equal(field and "worker" or kind, err.kind)
  if field then assert.equal(value, err[field]) end
  assert.is_string(tostring(err))
end

describe("a task", function()
  leaks.watch(after_each, assert)

  for _, act in ipairs(acts) do
    for _, stage in ipairs(stages(act[2])) do
      local how, field, value = act[1], act[3], act[4]

      it(("that %s %s fails alone"):format(how, stage.name), function()
        tidemill.with(2, function(pool)
          local before = processes.clock()
          for _, chunk in ipairs { 1, 4, 100 } do
            local options = { chunksize = chunk, errors = "collect" }
            local results = pool:map(stage.f, stage.items, options)
            for i = 1, 9 do
              if i ~= 5 then assert.equal(i, results[i]) end
            end
            check_failure(results[5], stage.kind, field, value)
            assert.equal(5, results[5].index)
            local count = 0
            for i, result, err in pool:imap(stage.f, stage.items, options) do
              count = count + 1
              assert.equal(count, i)
              if i == 5 then check_failure(err, stage.kind, field, value)
              else assert.equal(i, result) end
            end
            assert.equal(9, count)
            local ok, err = pool:map_async(stage.f, stage.items, chunk):try(DEADLINE_S)
            assert.is_false(ok)
            check_failure(err, stage.kind, field, value)
          end
          local call = pool:apply_async(stage.f, { stage.items[5] })
          local others = pool:map_async(identity, numbers(200), 3)
          local ok, err = call:try(DEADLINE_S)
          assert.is_false(ok)
          check_failure(err, stage.kind, field, value)
          assert.same(numbers(200), others:get(DEADLINE_S))
          assert_alive(pool)
          assert.is_true(processes.clock() - before < DEADLINE_S)
          assert.is_truthy(processes.eventually(DEADLINE_S, function()
            return #pool:workers() == 2
          end))
        end)
      end)
    end
  end

  it("whose result raises while the script decodes it fails alone", function()
    tidemill.with(2, function(pool)
      local pids = pool:workers()
      local function work(x)
        if x ~= 5 then return x end
        return { setmetatable({}, { __tidemill = {
          encode = function() return 1 end,
          decode = function() error "not here" end,
        } }) }
      end
      for _, chunk in ipairs { 1, 4, 100 } do
        local results = pool:map(work, numbers(9), { chunksize = chunk, errors = "collect" })
        for i = 1, 9 do
          if i ~= 5 then assert.equal(i, results[i]) end
        end
        check_failure(results[5], "decode")
        assert.equal(5, results[5].index)
        local stream, count = pool:imap(work, numbers(9), chunk), 0
        for i = 1, 9 do
          local ok, place = pcall(stream.next, stream)
          count = count + 1
          if i == 5 then
            assert.is_false(ok)
            check_failure(place, "decode")
          else
            assert.equal(i, place)
          end
        end
        assert.equal(9, count)
      end
      local ok, err = pool:submit(work, 5):try(DEADLINE_S)
      assert.is_false(ok)
      check_failure(err, "decode")
      assert_alive(pool)
      assert.same(pids, pool:workers())
    end)
  end)

  it("whose item dies at any stage is tried again as often as it may be", function()
    for _, stage in ipairs(stages(acts[4][2])) do
      tidemill.with(2, function(pool)
        local results = pool:map(stage.f, stage.items,
          { chunksize = 4, errors = "collect", retries = 2 })
        check_failure(results[5], "worker", "signal", processes.SIGKILL)
        assert.equal(3, results[5].attempts)
        for i = 1, 9 do
          if i ~= 5 then assert.equal(i, results[i]) end
        end
      end)
    end
  end)

  it("that cannot be encoded, between others that can, harms none", function()
    tidemill.with(2, function(pool)
      local results = {}
      for i = 1, 100 do
        results[i] = i % 10 == 5 and pool:submit(identity, hooked(one, one), coroutine.create(one))
          or pool:submit(identity, i)
      end
      for i = 1, 100 do
        local ok, value = results[i]:try(DEADLINE_S)
        if i % 10 == 5 then
          assert.is_false(ok)
          assert.equal("encode", value.kind)
        else
          assert.equal(i, value)
        end
      end
    end)
  end)
end)

describe("large messages", function()
  leaks.watch(after_each, assert)

  local large = ("x"):rep(10 * 1024 * 1024)

  for _, act in ipairs(acts) do
    local how, die, field, value = unpack(act)

    it("of a task that " .. how .. " hold up nothing", function()
      tidemill.with(2, function(pool)
        for _ = 1, 2 do
          local results = {}
          for i = 1, 6 do
            results[i] = pool:submit(function(n, text)
              if n % 2 == 0 then die() end
              return #text
            end, i, large)
          end
          for i = 1, 6 do
            local ok, outcome = results[i]:try(DEADLINE_S)
            if i % 2 == 0 then
              assert.is_false(ok)
              check_failure(outcome, "task", field, value)
            else
              assert.equal(#large, outcome)
            end
          end
          assert_alive(pool)
        end
      end)
    end)
  end

  it("of errors do not fail the pool, all items of a map at once", function()
    for _, errors in ipairs { "raise", "collect" } do
      local pool = tidemill.pool(2)
      local result = pool:map_async(function(x) error(("e"):rep(2 ^ 20) .. x, 0) end,
        { 1, 2, 3, 4 }, { chunksize = 1, errors = errors })
      pool:close()
      assert.is_true(pool:join(DEADLINE_S))
      local ok, outcome = result:try(0)
      assert.equal(errors == "collect", ok)
      for i, err in ipairs(ok and outcome or { outcome }) do
        assert.equal(2 ^ 20 + 1, #err.message)
        if ok then assert.equal(("e"):rep(2 ^ 20) .. i, err.message) end
      end
    end
  end)

  it("of workers that are killed while they write come whole or not at all", function()
    tidemill.with(2, function(pool)
      for _ = 1, 15 do
        local result = pool:map_async(function(x) return string.char(64 + x):rep(4e6) end,
          numbers(8), { chunksize = 2, errors = "collect" })
        result:wait(0.004)
        local pids = pool:workers()
        if #pids > 0 then processes.kill(pids[1], processes.SIGKILL) end
        local lost = 0
        for i, text in ipairs(result:get(DEADLINE_S)) do
          if tidemill.is_error(text) then
            assert.equal("worker", text.kind)
            lost = lost + 1
          else
            assert.is_true(text == string.char(64 + i):rep(4e6))
          end
        end
        assert.is_true(lost <= 1)
      end
    end)
  end)
end)

describe("the end of a pool", function()
  leaks.watch(after_each, assert)

  for _, act in ipairs(acts) do
    local how, die, field, value = unpack(act)

    it("comes although a task " .. how .. " after close was called", function()
      local gate = files.gate()
      local pool = tidemill.pool(2)
      local bad = pool:submit(function()
        files.pass(gate)
        die()
      end)
      local good = pool:map_async(identity, numbers(100), 3)
      pool:close()
      files.open(gate)
      assert.is_true(pool:join(DEADLINE_S))
      local ok, err = bad:try(0)
      assert.is_false(ok)
      check_failure(err, "task", field, value)
      assert.same(numbers(100), good:get(0))
    end)
  end

  it("waits for all that was given out", function()
    local pool = tidemill.pool(2)
    local results = {}
    for i = 1, 50 do
      results[i] = pool:submit(function(n)
        files.nap(0.01)
        return n
      end, i)
    end
    pool:close()
    assert.is_true(pool:join(DEADLINE_S))
    for i = 1, 50 do assert.equal(i, results[i]:get(0)) end
  end)

  it("comes after a flood that was given out while all workers were held", function()
    local gate = files.gate()
    local pool = tidemill.pool(2)
    local results = { pool:submit(files.pass, gate), pool:submit(files.pass, gate) }
    for i = 3, 30000 do results[i] = pool:submit(identity, i) end
    local mapped = pool:map_async(identity, numbers(30000), 1)
    files.open(gate)
    pool:close()
    assert.is_true(pool:join(DEADLINE_S))
    for i = 3, 30000 do assert.equal(i, results[i]:get(0)) end
    assert.same(numbers(30000), mapped:get(0))
  end)

  it("comes after a flood of tasks that end their workers", function()
    local pool = tidemill.pool(3)
    local results = {}
    for i = 1, 200 do results[i] = i % 2 == 0 and pool:submit(os.exit, 1)
      or pool:submit(identity, i) end
    pool:close()
    assert.is_true(pool:join(DEADLINE_S))
    for i = 1, 200 do
      local ok, outcome = results[i]:try(0)
      assert.equal(i % 2 == 1, ok)
      if ok then assert.equal(i, outcome) else assert.equal("worker", outcome.kind) end
    end
  end)
end)

describe("a supervisor", function()
  it("that dies while there is no pool is replaced for the next", function()
    local out = shell.run("TIDEMILL SCRIPT", ([[
      package.path = %q
      local processes, tidemill = require "support.processes", require "tidemill"
      tidemill.with(1, function() end)
      local supervisor = processes.children(processes.self())[1]
      processes.kill(supervisor, processes.SIGKILL)
      processes.eventually(30, function() return not processes.is_alive(supervisor) end)
      pcall(tidemill.with, 1, function() end) -- may be the one that finds out
      print(tidemill.with(1, function(pool) return pool:apply(math.abs, { -7 }) end))
    ]]):format(package.path))
    assert.equal("7\n", out)
  end)
end)
