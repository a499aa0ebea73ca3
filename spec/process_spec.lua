-- Processes: those cases of Python's multiprocessing.Process, and what it has no answer to.

local common = require "support.common"
local core = require "tidemill.core"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local raised = common.raised

local function never_ends() while true do end end

local function started(f, args, options)
  local process = tidemill.process(f, args, options)
  process:start()
  return process
end

--- Start it, wait for its end, and return it.
local function run(f, args, options)
  local process = started(f, args, options)
  assert.is_true(process:join(60))
  return process
end

--- Raises, and does not say so.
local function fails(value)
  processes.hush()
  error(value)
end

local function returns_a_coroutine()
  processes.hush()
  return coroutine.create(print)
end

--- Returns a value, and does not end before the gate is open.
local function lingers(gate, value)
  local keep = newproxy(true)
  getmetatable(keep).__gc = function() files.pass(gate) end
  rawset(_G, "KEEP", keep)
  return value
end

local function supervisor_of(pid)
  for _, supervisor in ipairs(processes.children(processes.self())) do
    for _, child in ipairs(processes.children(supervisor)) do
      if child == pid then return supervisor end
    end
  end
end

--- How often `f` sleeps.
local function count_sleeps(f)
  local sleeps, sleep = 0, core.wait_pools
  core.wait_pools = function(...)
    sleeps = sleeps + 1
    return sleep(...)
  end
  local ok, problem = pcall(f)
  core.wait_pools = sleep
  assert(ok, problem)
  return sleeps
end

describe("tidemill.process", function()
  leaks.watch(after_each, assert)

  it("runs a function in a process of its own, with its arguments", function()
    local process = tidemill.process(function(a, b)
      return a + b, nil, require "tidemill".worker().pid, nil
    end, { 40, 2 })
    assert.is_false(process:is_alive())
    assert.is_nil(process.pid)
    process:start()
    local results = { n = select("#", process:result()), process:result() }
    assert.same({ n = 4, 42, nil, process.pid, nil }, results)
    assert.are_not.equal(processes.self(), process.pid)
    assert.is_true(process:join())
    assert.equal(0, process.exitcode)
    assert.is_false(process:is_alive())
    assert.equal(42, (process:result())) -- again
  end)

  it("is alive from its start to its end", function()
    local gate = files.gate()
    local process = started(files.pass, { gate })
    assert.is_true(process:is_alive())
    assert.is_nil(process.exitcode)
    assert.is_false(process:join(0))
    assert.is_false(process:join(0.01))
    raised("timeout", process.result, process, 0.01)
    files.open(gate)
    assert.is_true(process:join(60))
    assert.is_true(process:join(0))
    assert.is_false(process:is_alive())
    assert.is_false(processes.exists(process.pid))
  end)

  it("has an exit code that tells how it ended", function()
    local function crash() return require "ffi".cast("int *", 8)[0] end
    for _, case in ipairs {
      { function() end, 0 }, { function() return false end, 0 }, { function() fails "no" end, 1 },
      { function() fails() end, 1 }, { function() os.exit(7) end, 7 },
      { function() os.exit(0) end, 0 }, { function() os.exit(true) end, 0 },
      { function() os.exit(false) end, 1 }, { function() os.exit(255) end, 255 },
      { crash, -processes.SIGSEGV }, { returns_a_coroutine, 1 },
    } do
      assert.equal(case[2], run(case[1]).exitcode)
    end
  end)

  it("raises from result what the function raised, with the traceback", function()
    local process = started(fails, { { code = 7 } })
    local err = raised("task", process.result, process)
    assert.same({ code = 7 }, err.value)
    assert.equal(process.pid, err.pid)
    assert.is_truthy(err.traceback:find("process_spec.lua", 1, true))
    process:join()
    assert.equal(err, raised("task", process.result, process))
  end)

  it("raises from result how it ended, if that was before the function did", function()
    for _, case in ipairs {
      { function() os.exit(3) end, "exitcode", 3 }, { function() os.exit(0) end, "exitcode", 0 },
      { function() processes.kill(processes.self(), 9) end, "signal", 9 },
    } do
      local process = started(case[1])
      local err = raised("worker", process.result, process)
      assert.equal(case[3], err[case[2]])
      assert.equal(process.pid, err.pid)
      assert.is_true(process:join(0))
    end
  end)

  it("says what cannot travel: an argument at once, a result with the result", function()
    local process = tidemill.process(print, { { at = coroutine.create(print) } })
    local err = raised("encode", process.start, process)
    assert.is_truthy(err.message:find("at", 1, true))
    assert.is_nil(process.pid)
    local thread = coroutine.create(print)
    process = tidemill.process(function() return thread end)
    raised("encode", process.start, process)
    process = run(returns_a_coroutine)
    raised("encode", process.result, process)
  end)

  it("ends by terminate and kill, also in a compiled loop", function()
    for _, case in ipairs { { "terminate", -15 }, { "kill", -9 } } do
      local log = files.log()
      local process = started(function()
        files.note(log, "up")
        never_ends()
      end)
      files.await(log, 1)
      process[case[1]](process)
      assert.is_true(process:join(60))
      assert.equal(case[2], process.exitcode)
      assert.equal(-case[2], raised("worker", process.result, process).signal)
      process[case[1]](process) -- of one that has ended: nothing
    end
  end)

  it("ends by kill when it is stopped", function()
    local process = started(never_ends)
    processes.kill(process.pid, processes.SIGSTOP)
    process:kill()
    assert.is_true(process:join(60))
    assert.equal(-9, process.exitcode)
  end)

  it("is not replaced, whenever it dies", function()
    for _ = 1, 20 do
      local process = started(never_ends)
      processes.kill(process.pid, processes.SIGKILL)
      assert.is_true(process:join(60))
      assert.equal(-9, process.exitcode)
    end
  end)

  it("can be started a hundred times and killed at any moment", function()
    local all = {}
    for i = 1, 100 do
      all[i] = started(i % 2 == 0 and never_ends or files.nap, { 60 })
      if i % 3 == 0 then all[i]:kill() end
    end
    for _, process in ipairs(all) do process:kill() end
    for _, process in ipairs(all) do
      assert.is_true(process:join(60))
      assert.equal(-9, process.exitcode)
    end
  end)

  it("starts once, and is joined after that", function()
    local process = tidemill.process(function() end)
    for _, method in ipairs { "join", "result", "terminate", "kill", "get", "try", "wait",
        "ready" } do
      assert.has_error(function() process[method](process) end,
        ("process:%s: start it first"):format(method))
    end
    process:start()
    assert.has_error(function() process:start() end, "process:start: it was started before")
    process:join()
    assert.has_error(function() process:start() end, "process:start: it was started before")
  end)

  it("has a name", function()
    assert.is_truthy(tidemill.process(print).name:find "^process%-%d+$")
    local process = run(function() return require "tidemill".worker().pool end, nil,
      { name = "mill" })
    assert.equal("mill", process.name)
    assert.equal("mill", process:result())
    assert.equal("tidemill.Process 'mill' (exit code 0)", tostring(process))
  end)

  it("refuses what it does not know", function()
    local where = "tidemill.process: "
    for _, case in ipairs {
      { { 42 }, "f: it must be a function or a string, got number" },
      { { print, 1 }, "args must be a table or nil, got 1" },
      { { print, {}, 3 }, "options must be a table or nil, got 3" },
      { { print, {}, { nme = "x" } }, "unknown option 'nme'" },
      { { print, {}, { inherit = true, start_method = "spawn" } },
        "inherit needs start_method 'fork'" },
    } do
      assert.has_error(function() tidemill.process(unpack(case[1])) end, where .. case[2])
    end
    local process = tidemill.process(print)
    assert.has_error(function() process.start() end, "process:start: call it with a colon")
  end)

  it("starts processes and pools of its own", function()
    local function descend(depth)
      if depth == 0 then return 1 end
      local tm = require "tidemill"
      local left, right = tm.process(descend, { depth - 1 }), tm.process(descend, { depth - 1 })
      left:start()
      right:start()
      return left:result() + right:result()
    end
    assert.equal(8, run(descend, { 3 }):result())
    assert.same({ 1, 4, 9 }, run(function()
      return require "tidemill".with(2, function(pool)
        return pool:map("x -> x * x", { 1, 2, 3 })
      end)
    end):result())
  end)

  it("takes along what it started when it is killed", function()
    local log = files.log()
    local process = started(function()
      local inner = require "tidemill".process(function()
        files.note(log, processes.self())
        never_ends()
      end)
      inner:start()
      inner:join()
    end)
    files.await(log, 1)
    local inner = tonumber(files.lines(log)[1])
    process:kill()
    process:join()
    assert.is_true(processes.eventually(60, function() return not processes.is_alive(inner) end))
  end)

  it("starts as a copy of the script, if it is to", function()
    rawset(_G, "SEEN", setmetatable({ 1, 2, 3 }, { __mode = "k" }))
    local inherits = run(function() return #rawget(_G, "SEEN") end, nil, { inherit = true })
    rawset(_G, "SEEN", nil)
    assert.equal(3, inherits:result())
  end)

  it("keeps to its memory limit", function()
    local process = run(function()
      processes.hush()
      return ("x"):rep(1e8):len()
    end, nil, { memory_limit = 1e7 })
    assert.is_truthy(raised("task", process.result, process).message:find "not enough memory")
  end)

  it("runs beside pools and other processes", function()
    tidemill.with(2, function(pool)
      local process = started(function(x) return x * 2 end, { 21 })
      assert.same({ 2, 3 }, pool:map("x -> x + 1", { 1, 2 }))
      assert.equal(42, process:result())
    end)
  end)

  it("hands over large arguments and results", function()
    local text = ("tide"):rep(2 ^ 22)
    local process = run(function(given) return #given, given:reverse() end, { text })
    local length, reversed = process:result()
    assert.equal(#text, length)
    assert.equal(text:reverse(), reversed)
  end)

  it("can be waited for among others", function()
    local gate = files.gate()
    local slow, quick = started(files.pass, { gate }), started(function() return 1 end)
    local done, pending = tidemill.wait({ slow, quick }, { return_when = "first" })
    assert.same({ quick }, done)
    assert.same({ slow }, pending)
    assert.same({}, (tidemill.wait({ slow }, 0.01)))
    files.open(gate)
    local order = {}
    for process in tidemill.as_completed { quick, slow } do order[#order + 1] = process end
    assert.same({ quick, slow }, order)
    local killed = started(never_ends)
    killed:kill()
    assert.same({ killed }, (tidemill.wait { killed }))
  end)

  it("is waited for until it has ended, not only until its result is there", function()
    local gate = files.gate()
    local process = started(lingers, { gate, 5 })
    assert.is_true(processes.eventually(60, function() return (process:try(0)) end))
    assert.is_true(count_sleeps(function()
      assert.same({}, (tidemill.wait({ process }, 0.2)))
      raised("timeout", tidemill.as_completed({ process }, 0.2))
    end) < 10)
    assert.is_true(process:is_alive())
    files.open(gate)
    assert.same({ process }, (tidemill.wait { process }))
    assert.equal(0, process.exitcode)
  end)

  it("has ended when a wait says so", function()
    for code = 0, 20 do
      local exits = started(os.exit, { code })
      for done in tidemill.as_completed { exits } do assert.equal(code, done.exitcode) end
      local returns, raises = started(tostring, { code }), started(fails, { code })
      assert.equal(2, #tidemill.wait { returns, raises })
      for _, process in ipairs { exits, returns, raises } do
        assert.is_false(process:is_alive())
        assert.is_true(process:join(0))
      end
      assert.same({ 0, 1 }, { returns.exitcode, raises.exitcode })
    end
  end)

  it("is waited for in the order of the ends, whoever has seen them", function()
    local all, order = {}, { 3, 1, 2 }
    local gates = { files.gate(), files.gate(), files.gate() }
    for i = 1, 3 do all[i] = started(lingers, { gates[i] }) end
    for _, i in ipairs(order) do
      files.open(gates[i])
      assert.is_true(processes.eventually(60, function() return not all[i]:is_alive() end))
    end
    for _, done in ipairs { (tidemill.wait(all)), (tidemill.wait { all[2], all[1], all[3] }) } do
      for place, i in ipairs(order) do assert.equal(all[i], done[place]) end
    end
  end)

  it("is waited for beside results, whatever pools they are of", function()
    local gate = files.gate()
    local broken = tidemill.pool { processes = 1, inherit = true }
    local lost = broken:submit(never_ends)
    tidemill.with(1, function(pool)
      local ready, late = pool:submit(tostring, 1), pool:submit(files.pass, gate)
      processes.kill(supervisor_of(broken:workers()[1]), processes.SIGKILL)
      local failing, process = started(os.exit, { 0 }), started(lingers, { gate })
      local all = { process, late, failing, ready, lost }
      failing:join()
      ready:wait()
      lost:wait()
      assert.is_true(count_sleeps(function()
        local done, pending = tidemill.wait(all, 0.2)
        assert.equal(3, #done)
        assert.same({ process, late }, pending)
      end) < 10)
      assert.same({ process }, select(2, tidemill.wait({ process, failing },
        { return_when = "error" }))) -- it did not return
      files.open(gate)
      local count = 0
      for _ in tidemill.as_completed(all, 60) do count = count + 1 end
      assert.equal(5, count)
    end)
    broken:terminate() -- compiled code may hold it, in a function that it has called
  end)

  it("is waited for beside results that a callback takes in", function()
    tidemill.with(1, function(one)
      tidemill.with(1, function(two)
        local gate = files.gate()
        local first = two:submit(files.pass, gate)
        local second = one:apply_async(tostring, { 1 }, {
          callback = function()
            files.open(gate)
            assert.is_true(processes.eventually(60, function() return first:ready() end))
          end,
        })
        assert.is_true(processes.eventually(60, function() return second:ready() end))
        assert.equal(0, count_sleeps(function()
          assert.equal(2, #tidemill.wait { first, second })
        end))
      end)
    end)
  end)

  it("is lost to a wait with its supervisor", function()
    local process, other = started(never_ends), started(never_ends)
    for _, child in ipairs(processes.children(processes.self())) do processes.kill(child, 9) end
    assert.equal(2, #(tidemill.wait({ process, other }, 60)))
    assert.same({ -9, -9 }, { process.exitcode, other.exitcode })
    assert.is_true(processes.eventually(60, function()
      return not processes.is_alive(process.pid) and not processes.is_alive(other.pid)
    end))
    tidemill.with(1, function() end) -- which starts another one
  end)

  it("is refused by a wait before it is started", function()
    local process = tidemill.process(print, {}, { name = "early" })
    for name, f in pairs { wait = tidemill.wait, as_completed = tidemill.as_completed } do
      assert.has_error(function() f { process } end,
        "tidemill." .. name .. ": process 'early': start it first")
      process:start()
      assert.has_error(function() f(process) end)
      process:join()
      process = tidemill.process(print, {}, { name = "early" })
    end
  end)

  it("can be asked as a result can", function()
    local gate = files.gate()
    local process = started(function(...)
      files.pass(gate)
      return ...
    end, { 1, nil, 3, n = 3 })
    for _, timeout in ipairs { 0, 0.01 } do
      assert.is_false(process:ready())
      assert.is_false(process:wait(timeout))
      raised("timeout", process.get, process, timeout)
      local ok, err = process:try(timeout)
      assert.same({ false, "timeout" }, { ok, err.kind })
    end
    files.open(gate)
    assert.is_true(process:wait(60))
    assert.is_true(process:ready())
    assert.same({ n = 3, 1, nil, 3 }, { n = select("#", process:get()), process:get() })
    assert.same({ n = 4, true, 1, nil, 3 }, { n = select("#", process:try(0)), process:try(0) })
    local raises, exits = started(fails, { "no" }), started(os.exit, { 3 })
    for _, case in ipairs { { raises, "task" }, { exits, "worker" } } do
      local ok, err = case[1]:try()
      assert.same({ false, case[2] }, { ok, err.kind })
      assert.equal(err, raised(case[2], case[1].get, case[1]))
      assert.equal(err, raised(case[2], case[1].result, case[1]))
    end
    for _, method in ipairs { "get", "try", "wait" } do
      assert.has_error(function() process[method](process, "1") end,
        ("process:%s: timeout must be a number of seconds, got '1'"):format(method))
    end
  end)

  it("runs on when its object is dropped", function()
    local log = files.log()
    started(function()
      files.nap(0.05)
      files.note(log, "done")
    end)
    collectgarbage()
    collectgarbage()
    files.await(log, 1)
    assert.is_true(processes.eventually(60, function()
      started(function() end):join() -- which forgets those that have ended
      collectgarbage()
      return processes.holdings() == 0
    end))
  end)

  it("is lost with its supervisor", function()
    local process = started(never_ends)
    for _, child in ipairs(processes.children(processes.self())) do processes.kill(child, 9) end
    raised("broken", process.result, process)
    assert.equal(-9, process.exitcode)
    assert.is_true(processes.eventually(60, function()
      return not processes.is_alive(process.pid)
    end))
    assert.equal(1, run(function() return 1 end):result())
  end)

  it("tells why it could not start", function()
    local output, err = shell.run("TIDEMILL SCRIPT", [[
      package.path = "./spec/?.lua;" .. package.path
      local tidemill, bomb = require "tidemill", require "support.bomb"
      tidemill.register("explosive", { __index = bomb.f })
      local process = tidemill.process(function() end)
      process:start()
      local ok, err = pcall(process.result, process)
      print(ok, err.kind, err.message:match "support.bomb", process.exitcode ~= 0)
    ]])
    assert.is_truthy(err:find "^tidemill: process .*support.bomb")
    assert.equal("false\tinit\tsupport.bomb\ttrue\n", output)
  end)
end)

describe("the error of a process", function()
  it("is printed at once, with name and traceback, though nobody asks for it", function()
    local output, _, status = shell.run("TIDEMILL SCRIPT 2>&1", [[
      io.stdout:setvbuf "no"
      package.path = "./spec/?.lua;" .. package.path
      local files, gate = require "support.files", require "support.files".gate()
      local process = require "tidemill".process(function()
        KEEP = newproxy(true)
        getmetatable(KEEP).__gc = function() files.pass(gate) end -- it does not end
        error "no"
      end, {}, { name = "mill" })
      process:start()
      local ok, err
      repeat ok, err = process:try(0.01) until err.kind == "task"
      print(ok, process:is_alive())
      files.open(gate)
      process:join()
      print(process.exitcode)
    ]])
    assert.is_truthy(output:find("^tidemill: process 'mill' %(pid %d+%): [^\n]+:7: no\n" ..
      "stack traceback:\n[^:]+: in function 'error'\n[^\n]+:7: in function <[^\n]+:4>\n" ..
      "false\ttrue\n1\n$"))
    assert.equal(0, status)
  end)

  it("is printed once: who asks for it gets it without the traceback", function()
    local output, err, status = shell.run("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      local function explode() error "no" end
      local process = tidemill.process(explode)
      process:start()
      local ok, err = process:try()
      print(tostring(err):find "traceback", err.traceback:find "explode" ~= nil, err.printed)
      process:get()
    ]])
    assert.equal("nil\tfalse\ttrue\n", output)
    assert.equal(1, select(2, err:gsub("in function <SCRIPT:2>", "")))
    assert.is_truthy(err:find "\ntidemill: SCRIPT:2: no %(worker 1, pid %d+%)\nin the script: ")
    assert.equal(1, status)
  end)

  it("is printed of what cannot travel, too", function()
    local _, err = shell.run("TIDEMILL SCRIPT", [[
      local process = require "tidemill".process(function() return coroutine.create(print) end)
      process:start()
      process:join()
    ]])
    assert.is_truthy(err:find "^tidemill: process 'process%-1' %(pid %d+%): cannot send result")
  end)

  it("is none if it ends by itself, and none of a pool's worker is printed", function()
    local _, err = shell.run("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      for _, code in ipairs { 0, 1, 4 } do
        local process = tidemill.process(os.exit, { code })
        process:start()
        process:join()
      end
      local process = tidemill.process(function() while true do end end)
      process:start()
      process:kill()
      process:join()
      tidemill.with(1, function(pool) pool:submit(error, "no"):try() end)
    ]])
    assert.equal("", err)
  end)
end)

describe("a script with processes", function()
  it("may have them spawned", function()
    local output, err = shell.run("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      local process = tidemill.process("x -> x * 2", { 21 }, { start_method = "spawn" })
      process:start()
      print(process:result(), process:join(), process.exitcode)
    ]])
    assert.equal("", err)
    assert.equal("42\ttrue\t0\n", output)
  end)

  it("is not waited for by them: they end with it", function()
    local _, err, status = shell.run("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      for _ = 1, 3 do tidemill.process(function() while true do end end):start() end
    ]])
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("may be killed, and they are gone", function()
    local script = shell.start([[
      local process = tidemill.process(function() while true do end end)
      process:start()
      mark(process.pid)
      process:join()
    ]])
    local pid = tonumber(script.text)
    assert.is_true(processes.is_alive(pid))
    processes.kill(script.pid, processes.SIGKILL)
    assert.is_true(processes.eventually(60, function() return not processes.is_alive(pid) end))
    shell.finish(script)
  end)

  it("has what they wrote, to the last byte", function()
    local output, err, status = shell.run("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      local function write(exits)
        io.write("no newline")
        io.stderr:write("to stderr")
        if exits then os.exit(3) end
      end
      for _, exits in ipairs { false, true } do
        local process = tidemill.process(write, { exits })
        process:start()
        process:join()
      end
    ]])
    assert.equal("no newlineno newline", output)
    assert.equal("to stderrto stderr", err)
    assert.equal(0, status)
  end)

  it("may have closed its standard output", function()
    local _, err, status = shell.run("TIDEMILL SCRIPT >&-", [[
      local tidemill = require "tidemill"
      local process = tidemill.process(function() io.write "lost" return 1 end)
      process:start()
      assert(process:result() == 1)
      process:join()
      assert(process.exitcode == 0)
    ]])
    assert.is_truthy(err:find "^tidemill: worker 1 %(pid %d+%) cannot write its output\n$", err)
    assert.equal(1, status)
  end)
end)
