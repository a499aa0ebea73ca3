-- Whatever happens at any stage of a task: a final state, nothing run twice, the pool goes on.

local common = require "support.common"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers = common.numbers
local assert_alive = common.assert_alive

local function identity(x) return x end
local function spin() while true do end end

local function ways()
  return {
    { "raises", function() error "no" end },
    { "exits", function() os.exit(5) end, "exitcode", 5 },
    { "crashes", function() require "ffi".cast("int *", 8)[0] = 1 end, "signal", 11 },
    { "aborts", function()
      local C = require "ffi"
      C.cdef "void abort(void);"
      C.C.abort()
    end, "signal", 6 },
  }
end

describe("a task", function()
  leaks.watch(after_each, assert)

  for _, way in ipairs(ways()) do
    local name, act, field, value = unpack(way)
    local function check(expected, result)
      local ok, err = result:try(10)
      assert.is_false(ok)
      assert.equal(field and "worker" or expected, err.kind)
      if field then assert.equal(value, err[field]) end
      return err
    end

    -- The module is harmless here; in a worker its loading does `act`.
    it(("that %s while its argument is decoded fails alone"):format(name), function()
      local bomb = require "support.bomb"
      local options = { processes = 2, initializer = function(f) BOMB = f end, -- luacheck: ignore
        initargs = { act } }
      tidemill.with(options, function(pool)
        for _ = 1, 3 do
          check("decode", pool:apply_async(identity, { bomb.f }))
          local results = pool:map(identity, { 1, bomb.f, 3, "x", bomb },
            { chunksize = 5, errors = "collect" })
          for i, expected in pairs { 1, nil, 3, "x" } do assert.equal(expected, results[i]) end
          for _, i in ipairs { 2, 5 } do
            assert.equal(field and "worker" or "decode", results[i].kind)
            assert.equal(i, results[i].index)
          end
          assert_alive(pool)
        end
      end)
    end)

    it(("that %s while its function is decoded fails alone"):format(name), function()
      local bomb = require "support.bomb"
      local options = { processes = 2, initializer = function(f) BOMB = f end, -- luacheck: ignore
        initargs = { act } }
      tidemill.with(options, function(pool)
        for _ = 1, 3 do
          check("decode", pool:apply_async(function() return bomb.f() end))
          check("decode", pool:apply_async(bomb.f))
          local results = pool:map(function(x) return bomb and x end, numbers(9),
            { chunksize = 3, errors = "collect" })
          for i = 1, 9 do assert.is_true(tidemill.is_error(results[i])) end
          assert_alive(pool)
        end
      end)
    end)

    it(("that %s while it runs fails alone, after large results"):format(name), function()
      tidemill.with(2, function(pool)
        for _, chunk in ipairs { 1, 7, 1000 } do
          local results = pool:map(function(x)
            if x == 7 or x == 8 then act() end
            return (("%d "):format(x)):rep(100000)
          end, numbers(12), { chunksize = chunk, errors = "collect" })
          for i = 1, 12 do
            if i == 7 or i == 8 then
              assert.equal(field and "worker" or "task", results[i].kind)
              assert.equal(i, results[i].index)
              assert.equal(i, results[i].item)
              assert.equal(value, results[i][field or "none"])
            else
              assert.equal((("%d "):format(i)):rep(100000), results[i])
            end
          end
          assert_alive(pool)
        end
      end)
    end)
  end

  it("whose result is of a module that only the worker finds fails alone", function()
    local directory = os.tmpname()
    os.remove(directory)
    os.execute("mkdir " .. directory)
    local file = io.open(directory .. "/only_there.lua", "w")
    file:write "return { f = function() end }"
    file:close()
    tidemill.with(1, function(pool)
      local function work(path)
        package.path = path .. "/?.lua;" .. package.path
        return require "only_there".f
      end
      for _ = 1, 3 do
        local ok, err = pool:apply_async(work, { directory }):try(10)
        assert.is_false(ok)
        assert.equal("decode", err.kind)
        assert.is_truthy(err.message:find("only_there", 1, true), err.message)
        assert_alive(pool)
      end
    end)
    os.execute("rm -r " .. directory)
  end)

  it("may raise anything", function()
    local never = setmetatable({}, { __index = error, __newindex = error })
    local cyclic = { text = "cyclic" }
    cyclic[1] = cyclic
    local raised = {
      { "text", "text" }, { 7, "7" }, { true, "true" }, { cyclic }, { never }, { math.floor },
      { setmetatable({}, { __tostring = function() return {} end }) },
      { setmetatable({}, { __tostring = function() error "never" end }) },
      { setmetatable({ x = 1 }, { __tostring = function(e) return "x is " .. e.x end }), "x is 1" },
      { { message = "mine" }, "mine" }, { { message = {} } },
      { tidemill }, { ("x"):rep(1000000), ("x"):rep(1000000) }, { 5LL, "5LL" },
    }
    tidemill.with(1, function(pool)
      local pid = pool:workers()[1]
      for _, case in ipairs(raised) do
        local ok, err = pool:submit(error, case[1], 0):try(10)
        assert.is_false(ok)
        assert.equal("task", err.kind)
        assert.equal(type(case[1]), type(err.value))
        assert.is_string(err.message)
        if case[2] then assert.equal(case[2], err.message) end
        assert.equal(pid, err.pid)
        assert.is_string(tostring(err))
      end
      local ok, err = pool:submit(error):try(10)
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.is_nil(err.value)
    end)
  end)

  it("may run out of stack or of memory", function()
    tidemill.with(1, function(pool)
      local function deep(n) return 1 + deep(n + 1) end
      for _, f in ipairs { deep, function() return ("xx"):rep(2 ^ 31 - 1) end,
        function() return unpack({}, 1, 1e8) end } do
        local ok, err = pool:submit(f, 1):try(30)
        assert.is_false(ok)
        assert.equal("task", err.kind)
      end
      assert_alive(pool)
    end)
  end)
end)

describe("workers", function()
  leaks.watch(after_each, assert)

  it("killed at any moment lose the item in hand and repeat none", function()
    local log = os.tmpname()
    local random = require "support.values".generator(os.time())
    tidemill.with(3, function(pool)
      for round = 1, 40 do
        io.open(log, "w"):close()
        local chunk = ({ 1, 5, 40 })[round % 3 + 1]
        local column = round % 2 == 0
        local result = pool:map_async(function(x)
          local file = io.open(log, "a")
          file:write(x, "\n")
          file:close()
          return column and x or { x }
        end, numbers(120), { chunksize = chunk, errors = "collect" })
        local kills = 0
        while kills < 3 do
          result:wait(random(100) / 50000)
          local pids = pool:workers()
          if #pids > 0 then processes.kill(pids[random(#pids)], processes.SIGKILL) end
          kills = kills + 1
        end
        local runs, lost = {}, 0
        local results = result:get(20)
        for line in io.lines(log) do runs[tonumber(line)] = (runs[tonumber(line)] or 0) + 1 end
        for i = 1, 120 do
          if tidemill.is_error(results[i]) then
            lost = lost + 1
            assert.equal("worker", results[i].kind)
            assert.equal(processes.SIGKILL, results[i].signal)
            assert.equal(i, results[i].index)
            assert.is_true((runs[i] or 0) <= 1)
          else
            assert.same(column and i or { i }, results[i])
            assert.equal(1, runs[i])
          end
        end
        assert.is_true(lost <= kills)
      end
    end)
    os.remove(log)
  end)

  it("all killed while idle are replaced, once each", function()
    tidemill.with(4, function(pool)
      local killed, kills = {}, 0
      for _ = 1, 15 do
        for _, pid in ipairs(pool:workers()) do
          processes.kill(pid, processes.SIGKILL)
          kills = kills + (killed[pid] and 0 or 1)
          killed[pid] = true
        end
        assert_alive(pool)
      end
      local restarts
      assert.is_true(processes.eventually(5, function()
        restarts = 0
        for _, worker in ipairs(pool:stats()) do restarts = restarts + worker.restarts end
        return restarts == kills and #pool:workers() == 4
      end), ("%d restarts after %d kills"):format(restarts, kills))
    end)
  end)

  it("killed while the pool is closed still leave their items to others", function()
    local pool = tidemill.pool(2)
    local gate = os.tmpname()
    local result = pool:map_async(function(x)
      while io.open(gate) do end
      return x
    end, numbers(50), { chunksize = 5, errors = "collect" })
    pool:close()
    local pid = pool:workers()[1]
    assert.is_true(processes.kill(pid, processes.SIGKILL))
    assert.is_truthy(processes.eventually(5, function() return not processes.is_alive(pid) end))
    os.remove(gate)
    local lost = 0
    for i, value in ipairs(result:get(20)) do
      if tidemill.is_error(value) then lost = lost + 1 else assert.equal(i, value) end
    end
    assert.is_true(lost <= 1)
    assert.is_true(pool:join(10))
  end)

  it("stopped hold up their own item only", function()
    local pool = tidemill.pool(2)
    local pid = pool:workers()[1]
    processes.kill(pid, processes.SIGSTOP)
    assert.is_truthy(processes.eventually(5, function() return processes.state(pid) == "T" end))
    for _ = 1, 20 do assert.equal(5, pool:submit(identity, 5):get(10)) end
    processes.kill(pid, processes.SIGCONT)
    assert_alive(pool)
    processes.kill(pid, processes.SIGSTOP)
    pool:terminate() -- a stopped one can be killed too
    assert.is_true(pool:join(5))
  end)

  it("are killed by terminate whatever they ignore", function()
    local pool = tidemill.pool(2)
    local result = pool:map_async(function()
      local C = require "ffi"
      C.cdef "void *signal(int, void *);"
      for number = 1, 31 do C.C.signal(number, C.cast("void *", 1)) end
      while true do end
    end, { 1, 2 }, 1)
    result:wait(0.05)
    pool:terminate()
    assert.is_true(pool:join(5))
    assert.equal("terminated", select(2, result:try()).kind)
  end)

  it("of a pool whose supervisor dies while it is idle end, all pools of it", function()
    local pools = { tidemill.pool(2), tidemill.pool(1) }
    local pids = {}
    for _, pool in ipairs(pools) do
      assert_alive(pool)
      for _, pid in ipairs(pool:workers()) do pids[#pids + 1] = pid end
    end
    local done, endless = pools[1]:submit(identity, 1), pools[2]:submit(spin)
    assert.equal(1, done:get())
    processes.kill(processes.children(processes.self())[1], processes.SIGKILL)
    assert.equal("broken", select(2, endless:try(10)).kind)
    for _, pid in ipairs(pids) do
      assert.is_truthy(processes.eventually(5, function() return not processes.is_alive(pid) end))
    end
    for _, pool in ipairs(pools) do
      local ok, err = pcall(pool.map, pool, identity, numbers(10))
      assert.is_false(ok)
      assert.equal("broken", err.kind)
      pool:close()
      assert.is_true(pool:join(5))
    end
    assert.equal(1, done:get())
    tidemill.with(2, assert_alive)
  end)

  it("that die at once break the pool, with the cause", function()
    -- They start, and die before they take an item: what they load kills them.
    local flag = os.tmpname()
    os.remove(flag)
    local pool = tidemill.pool { processes = 2, initializer = function(path)
      if io.open(path) then os.exit(9) end
    end, initargs = { flag } }
    assert_alive(pool)
    io.open(flag, "w"):close()
    for _, pid in ipairs(pool:workers()) do processes.kill(pid, processes.SIGKILL) end
    local ok, err = pool:submit(identity, 1):try(30)
    os.remove(flag)
    assert.is_false(ok)
    assert.equal("broken", err.kind)
    assert.is_truthy(err.message:find("exit code 9", 1, true), err.message)
    pool:terminate()
  end)
end)

describe("a script", function()
  local function ends(text, signal)
    local run = shell.start(text)
    if signal then assert.is_true(processes.kill(run.pid, signal)) end
    return shell.finish(run) -- which proves that nothing is left
  end

  it("killed leaves nothing, nested pools neither", function()
    for _, signal in ipairs { 9, 15, 1, 11 } do
      ends([[
        pool:map_async(function()
          local inner = require "tidemill"
          local nested = inner.pool(2)
          nested:map(function() while true do end end, { 1, 2, 3 })
        end, { 1, 2, 3, 4 }, 1):wait(0.05)
        mark()
        pool:close()
        pool:join()
      ]], signal)
    end
  end)

  it("may end at any point with pools open", function()
    local work = "for i = 1, 5 do pool:submit(function() while true do end end) end mark() "
    local _, err, status = ends(work)
    assert.equal("", err)
    assert.equal(0, status)
    _, err, status = ends(work .. "os.exit(7)")
    assert.equal("", err)
    assert.equal(7, status)
    _, _, status = ends(work .. "os.exit(true, true)")
    assert.equal(0, status)
    _, err, status = ends(work .. "error 'the end'")
    assert.is_truthy(err:find("the end", 1, true))
    assert.equal(1, status)
    _, err, status = ends(work
      .. "tidemill.with(2, function(p) p:submit(print) error 'inside' end)")
    assert.is_truthy(err:find("inside", 1, true))
    assert.equal(1, status)
    _, _, status = ends(work .. "ffi.cast('int *', 8)[0] = 1")
    assert.equal(139, status)
  end)

  it("that drops pools while it goes on leaves no worker of them", function()
    local _, err, status = ends [[
      for i = 1, 20 do tidemill.pool(2):submit(function() while true do end end) end
      pool = nil
      collectgarbage()
      collectgarbage()
      mark()
      local left = 1
      for _ = 1, 5000 do
        left = 0
        local file = io.open("/proc/self/task/" .. ffi.C.getpid() .. "/children")
        local supervisor = file:read "*n"
        file:close()
        file = io.open(("/proc/%d/task/%d/children"):format(supervisor, supervisor))
        for _ in file:read("*a"):gmatch "%d+" do left = left + 1 end
        file:close()
        if left == 0 then break end
        ffi.C.poll(nil, 0, 1)
      end
      os.exit(left)
    ]]
    assert.equal("", err)
    assert.equal(0, status)
  end)
end)
