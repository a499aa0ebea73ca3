-- Calls in bulk: each is alone, however many there are, whatever they share inside.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers = common.numbers
local raised = common.raised
local assert_alive = common.assert_alive

local MANY = 6000 -- more than a pool has slots, and than calls share a job

local function identity(x) return x end
local function spin() while true do end end

--- Keep all workers of a pool busy until files.open(gate).
local function hold(pool)
  local gate, held = files.gate(), {}
  local log = files.log()
  for i = 1, pool.processes do
    held[i] = pool:submit(function()
      files.note(log, "here")
      files.pass(gate)
    end)
  end
  files.await(log, pool.processes)
  os.remove(log)
  return gate, held
end

local function check_error(kind, result)
  local ok, err = result:try(60)
  assert.is_false(ok)
  assert.equal(kind, err.kind)
  return err
end

describe("calls in bulk", function()
  leaks.watch(after_each, assert)

  it("give each its own values, none, nils, and several", function()
    local function answer(n)
      if n % 5 == 0 then return end
      if n % 5 == 1 then return nil end
      if n % 5 == 2 then return n, nil, "x", nil end
      if n % 5 == 3 then return { n } end
      return n
    end
    local function count(...) return select("#", ...), ... end
    tidemill.with(2, function(pool)
      local results = {}
      for i = 1, MANY do results[i] = pool:submit(answer, i) end
      for i = 1, MANY do
        local values, a, b, c, d = count(results[i]:get())
        local kind = i % 5
        assert.equal(kind == 0 and 0 or kind == 2 and 4 or 1, values)
        if kind == 2 then assert.same({ i, nil, "x", nil }, { a, b, c, d }) end
        if kind == 3 then assert.same({ i }, a) end
        if kind == 4 then assert.equal(i, a) end
        if kind < 2 then assert.is_nil(a) end
      end
    end)
  end)

  it("take arguments of every number and size", function()
    tidemill.with(2, function(pool)
      local function count(...)
        local n = select("#", ...)
        return n, n > 0 and (select(-1, ...))
      end
      local cases = { { args = {}, n = 0, last = false }, { args = { 1, 2, 3 }, n = 3, last = 3 },
        { args = { nil, nil, n = 2 }, n = 2 }, { args = { 1, 2, 3, n = "2" }, n = 2, last = 2 },
        { args = { 1, 2, n = 0 }, n = 0, last = false }, { n = 0, last = false },
        { args = { ("x"):rep(1e5) }, n = 1, last = ("x"):rep(1e5) },
        { args = numbers(200), n = 200, last = 200 } }
      for _ = 1, 20 do
        local results = {}
        for i, case in ipairs(cases) do results[i] = pool:apply_async(count, case.args) end
        for i, case in ipairs(cases) do
          local n, last = results[i]:get()
          assert.equal(case.n, n)
          assert.equal(case.last, last)
        end
      end
      for _, n in ipairs { -1, 2 ^ 30, 0 / 0 } do
        local err = check_error("encode", pool:apply_async(count, { n = n }))
        assert.is_truthy(err.message:find("too many arguments", 1, true))
      end
    end)
  end)

  it("may have options of their own, one by one", function()
    tidemill.with(2, function(pool)
      local log, told = files.log(), 0
      local function tell() told = told + 1 end
      local function fail_once(key)
        if files.try(log, key) == 1 then error "the first time" end
        return key
      end
      local function die_once(key)
        if files.try(log, key) == 1 then os.exit(1) end
        return key
      end
      local results = {}
      for i = 1, 60 do
        local kind = i % 6
        results[i] = kind == 0 and pool:apply_async(fail_once, { i }, { retry_errors = 1 })
          or kind == 1 and pool:apply_async(fail_once, { i })
          or kind == 2 and pool:apply_async(identity, { i }, { callback = tell })
          or kind == 3 and i < 10 and pool:apply_async(spin, {}, { timeout = 0.05, retries = 1 })
          or kind == 4 and i < 30 and pool:apply_async(die_once, { i }, { retries = 1 })
          or pool:submit(identity, i)
      end
      for i = 1, 60 do
        local kind = i % 6
        if kind == 1 then
          assert.equal(1, check_error("task", results[i]).attempts)
        elseif kind == 3 and i < 10 then
          local err = check_error("timeout", results[i])
          assert.equal(2, err.attempts)
          assert.is_truthy(err.message:find("0.05 s while it ran the call", 1, true), err.message)
        else
          assert.equal(i, results[i]:get(60))
        end
      end
      assert.equal(10, told)
      os.remove(log)
    end)
  end)

  it("are begun in the order in which they were given, among other work too", function()
    tidemill.with(1, function(pool)
      local gate = hold(pool)
      local function turn()
        turns = (turns or 0) + 1 -- luacheck: ignore
        return turns -- luacheck: ignore
      end
      local function other() return turn() end
      local given = {}
      for i = 1, MANY do
        given[i] = i % 2500 == 0 and pool:map_async(turn, { 1, 2, 3 }, 1)
          or i % 1000 < 100 and pool:submit(other) or pool:submit(turn)
      end
      files.open(gate)
      local last = 0
      for i = 1, MANY do
        local value = given[i]:get()
        for _, place in ipairs(type(value) == "table" and value or { value }) do
          if type(value) ~= "table" then assert.is_true(place > last, ("call %d"):format(i)) end
          last = math.max(last, place)
        end
      end
      assert.equal(MANY + 2 * math.floor(MANY / 2500), last)
    end)
  end)

  it("that block hold up none of those after them", function()
    tidemill.with(3, function(pool)
      local results, gates = {}, {}
      for i = 1, 3 do
        gates[i] = files.gate()
        results[i] = pool:submit(function(gate, n)
          files.pass(gate)
          return n
        end, gates[i], i)
        if i < 3 then
          for k = 1, 50 do assert.equal(k, pool:submit(identity, k):get(60)) end
        end
      end
      for i = 3, 1, -1 do -- each waits for the one before
        files.open(gates[i])
        assert.equal(i, results[i]:get(60))
      end
    end)
  end)

  it("fail one by one, with everything an error has", function()
    tidemill.with(2, function(pool)
      local results = {}
      local function work(i)
        if i % 7 == 0 then error({ code = i }) end
        if i % 7 == 1 then error("text " .. i, 0) end
        return i
      end
      for i = 1, 3000 do results[i] = pool:submit(work, i) end
      for i = 1, 3000 do
        if i % 7 == 0 then
          local err = check_error("task", results[i])
          assert.equal(i, err.value.code)
          assert.is_nil(err.index)
          assert.is_nil(err.item)
          assert.equal(1, err.attempts)
          assert.is_number(err.worker)
          assert.is_number(err.pid)
          assert.is_string(err.traceback)
        elseif i % 7 == 1 then
          assert.equal("text " .. i, check_error("task", results[i]).message)
        else
          assert.equal(i, results[i]:get())
        end
      end
    end)
  end)

  it("that cannot be sent fail alone, and functions that cannot raise", function()
    tidemill.with(2, function(pool)
      local results, odd = {}, coroutine.create(identity)
      for i = 1, 3000 do
        if i % 3 == 0 then
          raised("encode", pool.submit, pool, function() return odd end)
          results[i] = pool:submit(identity, odd)
        else
          results[i] = pool:submit(identity, i)
        end
      end
      for i = 1, 3000 do
        if i % 3 == 0 then
          local err = check_error("encode", results[i])
          assert.equal("cannot send argument, a coroutine", err.message)
          assert.equal(1, err.attempts)
        else
          assert.equal(i, results[i]:get())
        end
      end
    end)
  end)

  it("are cancelled one by one, in the middle and beyond what workers can see", function()
    tidemill.with(2, function(pool)
      local gate, held = hold(pool)
      local log, results = files.log(), {}
      for i = 1, MANY do
        results[i] = i % 100 == 0 and pool:submit(files.note, log, i) or pool:submit(identity, i)
      end
      for i = MANY, 1, -1 do
        if i % 3 == 0 then assert.is_true(results[i]:cancel()) end
      end
      for i = 3, MANY, 3 do
        assert.is_false(results[i]:cancel())
        assert.equal("cancelled", select(2, results[i]:try(0)).kind)
      end
      files.open(gate)
      for _, result in ipairs(held) do result:get() end
      for i = 1, MANY do
        if i % 3 ~= 0 and i % 100 ~= 0 then assert.equal(i, results[i]:get()) end
        if i % 3 ~= 0 and i % 100 == 0 then results[i]:get() end
        assert.is_false(results[i]:cancel())
      end
      local ran = files.tally(log)
      for i = 100, MANY, 100 do assert.equal(i % 3 ~= 0 and 1 or nil, ran[tostring(i)]) end
      os.remove(log)
      assert_alive(pool)
    end)
  end)

  it("may all be cancelled, and the pool is idle then", function()
    local pool = tidemill.pool(2)
    for _ = 1, 3 do
      local gate, held = hold(pool)
      local results = {}
      for i = 1, MANY do results[i] = pool:submit(identity, i) end
      for i = 1, MANY do assert.is_true(results[i]:cancel()) end
      files.open(gate)
      for _, result in ipairs(held) do result:wait() end
      assert.is_false(pool:poll(0))
      assert_alive(pool)
    end
    pool:close()
    assert.is_true(pool:join(60))
  end)

  it("lose one to a worker that is killed, and no other", function()
    tidemill.with(2, function(pool)
      for _ = 1, 5 do
        local gate, held = hold(pool)
        local results = {}
        for i = 1, MANY do results[i] = pool:submit(identity, i) end
        processes.kill(pool:workers()[1], processes.SIGKILL)
        local lost = 0
        files.open(gate)
        for _, result in ipairs(held) do
          local ok, err = result:try(60)
          if not ok then
            assert.equal("worker", err.kind)
            assert.equal(processes.SIGKILL, err.signal)
            assert.is_truthy(err.message:find("while it ran the call", 1, true))
            lost = lost + 1
          end
        end
        assert.equal(1, lost)
        for i = 1, MANY do assert.equal(i, results[i]:get(60)) end
      end
    end)
  end)

  it("lose as many as kill their workers, each its own", function()
    tidemill.with(3, function(pool)
      local results = {}
      local function work(i)
        if i % 400 == 0 then os.exit(i / 400) end
        return i
      end
      for i = 1, 4000 do results[i] = pool:submit(work, i) end
      for i = 1, 4000 do
        if i % 400 == 0 then
          assert.equal(i / 400, check_error("worker", results[i]).exitcode)
        else
          assert.equal(i, results[i]:get(60))
        end
      end
    end)
  end)

  it("that were terminated all fail, each with its own error", function()
    local pool = tidemill.pool(2)
    local gate = hold(pool)
    local results, told = {}, 0
    local options = { error_callback = function(err)
      assert.equal("terminated", err.kind)
      told = told + 1
    end }
    for i = 1, MANY do
      results[i] = pool:apply_async(identity, { i }, i % 2 == 0 and options or nil)
    end
    pool:terminate()
    local seen = {}
    for i = 1, MANY do
      local err = check_error("terminated", results[i])
      assert.is_nil(seen[err])
      seen[err] = true
    end
    assert.equal(MANY / 2, told)
    raised("closed", pool.submit, pool, identity)
    raised("closed", pool.apply_async, pool, identity)
    files.open(gate)
  end)

  it("all fail when the supervisor dies", function()
    local pool = tidemill.pool(2)
    local gate = hold(pool)
    local results = {}
    for i = 1, MANY do results[i] = pool:submit(identity, i) end
    processes.kill(processes.children(processes.self())[1], processes.SIGKILL)
    for i = 1, MANY do check_error("broken", results[i]) end
    raised("broken", pool.submit, pool, identity)
    files.open(gate)
  end)

  it("are all run by a pool that is closed and joined", function()
    local pool = tidemill.pool(2)
    local gate = hold(pool)
    local results = {}
    for i = 1, MANY do results[i] = pool:submit(identity, i) end
    pool:close()
    raised("closed", pool.submit, pool, identity)
    files.open(gate)
    assert.is_true(pool:join(60))
    for i = 1, MANY do assert.equal(i, results[i]:get(0)) end
  end)

  it("run although their results were dropped, and call back", function()
    local told, sum = 0, 0
    local log = files.log()
    local pool = tidemill.pool(2)
    local gate = hold(pool)
    for i = 1, MANY do
      if i % 100 == 0 then
        pool:submit(files.note, log, i)
      else
        pool:apply_async(identity, { i }, { callback = function(x)
          told, sum = told + 1, sum + x
        end })
      end
    end
    collectgarbage()
    collectgarbage()
    files.open(gate)
    pool:close()
    assert.is_true(pool:join(60))
    assert.equal(MANY / 100, #files.lines(log))
    assert.equal(MANY - MANY / 100, told)
    local logged = MANY / 100
    assert.equal(MANY * (MANY + 1) / 2 - 100 * logged * (logged + 1) / 2, sum)
    os.remove(log)
  end)

  it("go with the pool that was dropped with them", function()
    local weak = setmetatable({}, { __mode = "k" })
    local function drop()
      local pool = tidemill.pool(1)
      for _ = 1, 2000 do weak[pool:submit(spin)] = true end
      weak[pool] = true
    end
    drop()
    assert.is_truthy(processes.eventually(30, function()
      collectgarbage()
      collectgarbage()
      return next(weak) == nil
    end))
  end)

  it("call back in order of completion, once each", function()
    tidemill.with(1, function(pool)
      local order = {}
      for i = 1, 5000 do
        pool:apply_async(identity, { i }, { callback = function(x) order[#order + 1] = x end })
      end
      pool:submit(identity):get()
      assert.same(numbers(5000), order)
    end)
  end)

  it("are found by wait and as_completed, whatever they share", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local results = { pool:submit(files.pass, gate) }
      for i = 2, 3000 do results[i] = pool:submit(identity, i) end
      local done, pending = tidemill.wait(results, { return_when = "first", timeout = 60 })
      assert.is_true(#done >= 1)
      assert.equal(3000, #done + #pending)
      local seen = {}
      local step = tidemill.as_completed(results, 60)
      for _ = 2, 3000 do
        local result = step()
        assert.is_nil(seen[result])
        seen[result] = true
      end
      assert.is_nil(seen[results[1]])
      files.open(gate)
      assert.is_true(rawequal(results[1], step()))
      assert.is_nil(step())
    end)
  end)

  it("wait where there is no shared memory for their arguments, and are cancelled there", function()
    if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then return end -- it takes all itself
    local out, err = shell.run("ulimit -v 500000; TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      local path, text, results = os.tmpname(), ("x"):rep(4e6), {}
      local function pass(name)
        repeat
          local file = io.open(name)
          if file then file:close() end
        until not file
      end
      tidemill.with(1, function(pool)
        pool:submit(pass, path)
        for i = 1, 200 do
          local odd = i % 100 == 0 and coroutine.create(print) or nil
          results[i] = pool:submit(function(n, t) return n + #t end, i, text, odd)
        end
        for i = 3, 200, 3 do assert(results[i]:cancel()) end
        os.remove(path)
        local counts = { done = 0, cancelled = 0, encode = 0 }
        for i = 1, 200 do
          local ok, value = results[i]:try(60)
          local what = ok and "done" or value.kind
          assert(not ok or value == i + 4e6)
          counts[what] = counts[what] + 1
        end
        print(counts.done, counts.cancelled, counts.encode, pool:apply(math.abs, { -7 }))
      end)]])
    assert.equal("", err)
    assert.equal("132\t66\t2\t7\n", out)
  end)

  it("may be given out by finalizers, in the middle of others", function()
    tidemill.with(2, function(pool)
      local extra, results = {}, {}
      local function litter(i)
        getmetatable(newproxy(true)).__gc = function()
          local ok, result = pcall(pool.submit, pool, identity, -i)
          if ok then extra[#extra + 1] = { result, -i } end
        end
      end
      for i = 1, 20000 do
        litter(i)
        results[i] = i % 3 == 0 and pool:submit(function() return i end) or pool:submit(identity, i)
      end
      for i = 1, 20000 do assert.equal(i, results[i]:get()) end
      assert.is_true(#extra > 0)
      for _, pair in ipairs(extra) do assert.equal(pair[2], pair[1]:get()) end
      collectgarbage()
      collectgarbage()
    end)
  end)

  it("take little memory, and give it back", function()
    tidemill.with(2, function(pool)
      local count = 100000
      local function held()
        collectgarbage()
        collectgarbage()
        return processes.resident "self" * 1024, collectgarbage "count" * 1024
      end
      assert_alive(pool)
      local gate, blockers = hold(pool)
      local resident, heap = held()
      local results = {}
      for i = 1, count do results[i] = pool:submit(identity, i) end
      local resident_now, heap_now = held()
      local each, of_heap = (resident_now - resident) / count, (heap_now - heap) / count
      assert.is_true(each < 800, ("%d bytes a call"):format(each))
      assert.is_true(of_heap < 250, ("%d bytes of the heap a call"):format(of_heap))
      files.open(gate)
      for _, result in ipairs(blockers) do result:get() end
      for i = 1, count do
        if results[i]:get() ~= i then error "another's result" end
      end
    end)
  end)

  it("keep no arguments once they are over, though others go on", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local blocker = pool:submit(files.pass, gate)
      local weak = setmetatable({}, { __mode = "k" })
      local results = {}
      for i = 1, 500 do
        local arg = { i }
        weak[arg] = true
        results[i] = pool:submit(function(t) return t end, arg)
      end
      for i = 1, 500 do
        local value = results[i]:get()
        assert.same({ i }, value)
        weak[value], results[i] = true, nil
      end
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
      files.open(gate)
      blocker:get()
    end)
  end)
end)

describe("the function of a call", function()
  leaks.watch(after_each, assert)

  it("is what it was at the call, also if its upvalues change between two", function()
    tidemill.with(2, function(pool)
      local number, list, text = 0, { 0 }, "a"
      local function numbered() return number end
      local function listed() return list[1] end
      local function both() return number, text end
      local results = {}
      for i = 1, 2000 do
        if i % 10 == 0 then number, list[1] = i, i end
        if i % 50 == 0 then text = text == "a" and "b" or "a" end
        results[i] = { pool:submit(numbered), pool:submit(listed), pool:submit(both),
          i - i % 10, text }
      end
      for i = 1, 2000 do
        local a, b, c, n, t = unpack(results[i])
        assert.equal(n, a:get())
        assert.equal(n, b:get())
        assert.same({ n, t }, { c:get() })
      end
    end)
  end)

  it("is sent anew for what equals but is not the same", function()
    tidemill.with(1, function(pool)
      local value = 0
      local function inverse() return 1 / value end
      for _ = 1, 3 do
        for _, zero in ipairs { 0, -0 } do
          value = zero
          for _ = 1, 3 do assert.equal(1 / zero, pool:submit(inverse):get()) end
        end
        value = nil
        raised("task", function() pool:submit(inverse):get() end)
        value = false
        raised("task", function() pool:submit(inverse):get() end)
      end
    end)
  end)

  it("is sent anew when a global that it reads has changed, or its environment", function()
    tidemill.with(1, function(pool)
      local function reader() return CALLS_SPEC_VALUE end -- luacheck: ignore
      setfenv(reader, _G)
      for i = 1, 20 do
        _G.CALLS_SPEC_VALUE = i - i % 5
        assert.equal(i - i % 5, pool:submit(reader):get())
      end
      setfenv(reader, { CALLS_SPEC_VALUE = "own" })
      assert.equal("own", pool:submit(reader):get())
      setfenv(reader, _G)
      assert.equal(20, pool:submit(reader):get())
      _G.CALLS_SPEC_VALUE = nil
      assert.is_nil(pool:submit(reader):get())
    end)
  end)

  it("may be another for each, and gone before it runs", function()
    tidemill.with(2, function(pool)
      local gate = hold(pool)
      local results = {}
      local function square(x) return x * x end
      local function cube(x) return x * x * x end
      for i = 1, 6000 do
        local kind = i % 4
        results[i] = kind == 0 and pool:submit(square, i) or kind == 1 and pool:submit(cube, i)
          or kind == 2 and pool:submit(function(x) return x + i % 300 end, i)
          or pool:submit("x -> -x", i)
        if i % 1000 == 0 then collectgarbage() end
      end
      files.open(gate)
      for i = 1, 6000 do
        local kind = i % 4
        local expected = kind == 0 and i * i or kind == 1 and i * i * i
          or kind == 2 and i + i % 300 or -i
        assert.equal(expected, results[i]:get())
      end
    end)
  end)

  it("draws the same random numbers, whatever lies between the calls", function()
    local function draw() return math.random() end
    local function drawn(workers, wait)
      return tidemill.with({ processes = workers, seed = 5 }, function(pool)
        local results, values = {}, {}
        for i = 1, 3000 do
          results[i] = pool:submit(draw)
          if i % 700 == 0 then pool:map(draw, numbers(20)) end
          if i % 900 == 0 then pool:submit(draw, coroutine.create(draw)) end
          if wait and i % 100 == 0 then results[i]:wait() end
        end
        for i = 1, 3000 do values[i] = results[i]:get() end
        return values
      end)
    end
    local expected = drawn(1)
    assert.same(expected, drawn(3))
    assert.same(expected, drawn(2, true))
    local distinct, count = {}, 0
    for _, value in ipairs(expected) do
      if not distinct[value] then distinct[value], count = true, count + 1 end
    end
    assert.equal(3000, count)
  end)
end)
