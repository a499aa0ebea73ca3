-- Ctrl-C: one line, status 130, at once, whatever goes on; and other ends of the command.

local processes = require "support.processes"
local shell = require "support.shell"

local SOON_S = 2 -- also on a busy machine

local scripts = {
  { "waits for one endless call", "pool:apply(function() while true do end end)" },
  { "waits for a result with a timeout",
    "pool:submit(function() while true do end end):get(100)" },
  { "joins", "pool:submit(function() while true do end end) pool:close() pool:join()" },
  { "leaves a with() block",
    "tidemill.with(2, function(p) p:submit(function() while true do end end) end)" },
  { "reads an endless iterator", "pool:map(type, function() return 1 end)" },
  { "hands out work without end",
    "while true do pool:map(function(x) return x end, tidemill.range(1, 100)) end" },
  { "has workers in a system call", [[pool:map(function()
      require "ffi".cdef "int poll(void *, unsigned long, int);"
      require "ffi".C.poll(nil, 0, 30000)
    end, { 1, 2, 3 }, 1)]] },
  { "has workers in nested pools", [[pool:map(function()
      require "tidemill".pool(1):apply(function() while true do end end)
    end, { 1, 2, 3 }, 1)]] },
  { "runs a loop inside pcall inside a coroutine", [[
    local function never() while true do end end
    while true do pcall(coroutine.wrap(function() pcall(never) end)) end]] },
  { "runs a compiled loop inside pcall",
    "while true do pcall(function() local n = 0 for i = 1, 1e15 do n = n + i end end) end" },
  { "catches with xpcall and a handler that raises",
    "while true do xpcall(function() while true do end end, function(e) error(e) end) end" },
  { "sorts", "while true do local t = {} for i = 1, 1e5 do t[i] = -i end table.sort(t) end" },
  { "has no pool at work", "while true do end" },
  { "waits for an initializer",
    "tidemill.pool { processes = 2, initializer = function() while true do end end }" },
  { "has 200 workers, half of them stopped", [[
    local many = tidemill.pool(200)
    local result = many:map_async(function(x)
      local C = require "ffi"
      C.cdef "int getpid(void); int kill(int, int); int poll(void *, unsigned long, int);"
      if x % 2 == 0 then C.C.kill(C.C.getpid(), 19) end
      while true do C.C.poll(nil, 0, 1000) end
    end, tidemill.range(1, 200), 1)
    result:wait(0.1)
    result:get()]] },
}

describe("Ctrl-C", function()
  for _, case in ipairs(scripts) do
    local what, text = unpack(case)
    it(("ends a script that %s"):format(what), function()
      local run = shell.start("io.write 'before\\n' mark() " .. text)
      local before = processes.clock()
      assert.is_true(processes.kill(-run.pid, processes.SIGINT))
      local output, err, status = shell.finish(run)
      assert.equal("tidemill: interrupted\n", err)
      assert.equal("before\n", output:sub(1, 7))
      assert.equal(130, status)
      assert.is_true(processes.clock() - before < SOON_S)
    end)
  end

  it("pressed many times is one", function()
    local run = shell.start "mark() while true do pcall(function() while true do end end) end"
    for _ = 1, 50 do processes.kill(-run.pid, processes.SIGINT) end
    local _, err, status = shell.finish(run)
    assert.equal("tidemill: interrupted\n", err)
    assert.equal(130, status)
  end)

  it("is left alone where the command was started with it ignored", function()
    local out, err, status = shell.run([[(trap '' INT; exec TIDEMILL SCRIPT)]], [[
      local ffi = require "ffi"
      ffi.cdef "int getpid(void); int kill(int, int);"
      ffi.C.kill(ffi.C.getpid(), 2)
      print(unpack(require("tidemill").pool(1):map(math.abs, { -1, -2 })))]])
    assert.equal("1\t2\n", out)
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("is what has ended a command that os.execute ran, whichever way that tells", function()
    for _, command in ipairs { "kill -INT $$", "exit 130", "sh -c 'kill -INT $$'; exit $?" } do
      local out, err, status = shell.run("TIDEMILL SCRIPT",
        ("print 'before' pcall(os.execute, %q) print 'after'"):format(command))
      assert.equal("before\n", out)
      assert.equal("tidemill: interrupted\n", err)
      assert.equal(130, status)
    end
    local _, _, status = shell.run("ulimit -c 0; TIDEMILL SCRIPT", "os.execute 'kill -QUIT $$'")
    assert.equal(131, status)
  end)

  it("changes nothing else about os.execute", function()
    local out, err, status = shell.run("TIDEMILL SCRIPT", [[
      local execute, pool = os.execute, require "tidemill".pool(1)
      print(os.execute "exit 3", os.execute "kill -TERM $$", execute() ~= 0)
      print(select(2, pcall(function() os.execute {} end)))
      print(pool:apply(function() return execute "exit 4" end))
      print(pool:apply(execute, { "exit 5" }))]])
    assert.equal("", err)
    assert.equal(0, status)
    assert.is_truthy(out:find("bad argument #1 to 'execute'", 1, true), out)
    local values = { os.execute "exit 3", os.execute "kill -TERM $$", os.execute "exit 4",
      os.execute "exit 5" } -- as this LuaJIT has them
    assert.equal(("%s\t%s\ttrue\n%s\n%s\n"):format(unpack(values)), (out:gsub("/[^\n]*\n", "")))
  end)

  it("costs workers nothing: they ignore it", function()
    local run = shell.start [[
      local result = pool:map_async(function(x) while not io.open(x) do end return x end,
        { arg[0], arg[0] .. "~", arg[0] }, 1)
      mark(table.concat(pool:workers(), " "))
      print(#result:get())]]
    for pid in run.text:gmatch "%d+" do processes.kill(tonumber(pid), processes.SIGINT) end
    io.open(run.path .. "~", "w"):close()
    local output, err, status = shell.finish(run)
    os.remove(run.path .. "~")
    assert.equal("3\n", output)
    assert.equal("", err)
    assert.equal(0, status)
  end)
end)

describe("the command's output", function()
  it("comes once each, from the script and from workers", function()
    local out, err, status = shell.run("TIDEMILL SCRIPT", [[
      io.write "start\n"
      local tidemill = require "tidemill"
      for round = 1, 5 do
        tidemill.with(3, function(pool)
          io.write("round ", round, "\n")
          pool:map(function(x) print("job " .. x) io.write("part " .. x .. "\n") end,
            tidemill.range(1, 40), 3)
        end)
      end
      io.write "end"]])
    assert.equal("", err)
    assert.equal(0, status)
    local seen = {}
    for line in out:gmatch "[^\n]+" do seen[line] = (seen[line] or 0) + 1 end
    assert.equal(1, seen.start)
    assert.equal(1, seen["end"])
    for i = 1, 5 do assert.equal(1, seen["round " .. i]) end
    for i = 1, 40 do
      assert.equal(5, seen["job " .. i])
      assert.equal(5, seen["part " .. i])
    end
  end)

  it("of a job is there when its result is", function()
    local out = shell.run("TIDEMILL SCRIPT", [[
      local pool = require "tidemill".pool(2)
      for i = 1, 50 do
        pool:apply(function(n) io.write("job ", n) end, { i })
        io.write("\nscript ", i, "\n")
        io.stdout:flush()
      end]])
    local expected = {}
    for i = 1, 50 do expected[i] = ("job %d\nscript %d\n"):format(i, i) end
    assert.equal(table.concat(expected), out)
  end)

  it("of a worker that exits is not lost", function()
    local out = shell.run("TIDEMILL SCRIPT", [[
      local pool = require "tidemill".pool(1)
      pool:submit(function() io.write "last words" os.exit(1) end):wait()]])
    assert.equal("last words", out)
  end)

  it("into a closed pipe ends it, and leaves nothing", function()
    local out = shell.run("TIDEMILL SCRIPT | head -n 2", [[
      local pool = require "tidemill".pool(2)
      pool:map_async(function() while true do end end, { 1, 2 }, 1)
      while true do print "line" end]])
    assert.equal("line\nline\n", out)
  end)
end)

describe("the command's arguments", function()
  it("are all in arg, the script's in dots too", function()
    local out = shell.run("TIDEMILL -j 2 -e 'x = 1' SCRIPT a '' -x -- 'b c'", [[
      print(select("#", ...), ...)
      print(#arg, arg[1], arg[2], arg[3], arg[4], arg[5])
      print(arg[-1], arg[-2], arg[-3], arg[-4], arg[-5] ~= nil, arg[-6])]])
    assert.equal("5\ta\t\t-x\t--\tb c\n5\ta\t\t-x\t--\tb c\nx = 1\t-e\t2\t-j\ttrue\tnil\n", out)
  end)

  it("may be empty for a script that needs none, and for -e alone", function()
    assert.equal("0\t0\n", (shell.run("TIDEMILL SCRIPT", "print(#arg, select('#', ...))")))
    assert.equal("7\n", (shell.run "TIDEMILL -e 'x = 7' -e 'print(x)'"))
  end)

  it("stop at the first error of -e and -l", function()
    local out, err, status = shell.run("TIDEMILL -e 'print(1)' -e 'error \"two\"' SCRIPT",
      "print(3)")
    assert.equal("1\n", out)
    assert.is_truthy(err:find("(command line):1: two", 1, true), err)
    assert.equal(1, status)
    out, err, status = shell.run("TIDEMILL -l no_such_module SCRIPT", "print(3)")
    assert.is_truthy(err:find("no_such_module", 1, true), err)
    assert.equal("", out)
    assert.equal(1, status)
  end)

  it("that are wrong run nothing", function()
    for _, line in ipairs { "-q SCRIPT", "-e 'print(1)' -q SCRIPT", "-j 0 SCRIPT", "-j -1 SCRIPT",
      "-j 1.5 SCRIPT", "-j '' SCRIPT", "-j 2x SCRIPT" } do
      local out, err, status = shell.run("TIDEMILL " .. line, "print(1)")
      assert.equal("", out)
      assert.is_truthy(err:find "^tidemill: [^\n]+\n$", err)
      assert.equal(2, status)
    end
  end)

  it("- reads standard input to its end, with errors named so", function()
    local out, err, status = shell.run("TIDEMILL - one two < SCRIPT",
      "print(arg[0], ...)\nerror 'here'")
    assert.equal("-\tone\ttwo\n", out)
    assert.is_truthy(err:find("stdin:2: here", 1, true), err)
    assert.equal(1, status)
  end)

  it("name scripts that begin with a line for the system", function()
    assert.equal("fine\n", (shell.run("TIDEMILL SCRIPT", "#!/usr/bin/env tidemill\nprint 'fine'")))
  end)
end)

describe("the command's exit status", function()
  local function status_of(text) return (select(3, shell.run("TIDEMILL SCRIPT", text))) end

  it("is what os.exit says, in any form", function()
    assert.equal(0, status_of "os.exit()")
    assert.equal(0, status_of "os.exit(true)")
    assert.equal(1, status_of "os.exit(false)")
    assert.equal(42, status_of "os.exit(42)")
    assert.equal(3, status_of "require('tidemill').with(2, function() os.exit(3) end)")
    assert.equal(4, status_of "os.exit(4, true)")
    assert.equal(5, status_of "coroutine.wrap(function() os.exit(5) end)()")
  end)

  it("is 1 with a traceback for any error", function()
    for text, pattern in pairs {
      ["error 'text'"] = "^tidemill: SCRIPT:1: text\nstack traceback:\n",
      ["\n\nlocal x = nil + 1"] = "^tidemill: SCRIPT:3: attempt to perform arithmetic",
      ["error({ code = 1 })"] = "error object is a table value",
      ["error()"] = "error object is a nil value",
      ["error(setmetatable({}, { __tostring = function() return 'mine' end }))"]
        = "^tidemill: mine",
      ["coroutine.wrap(function() error 'in a coroutine' end)()"] = "in a coroutine",
      ["x ="] = "^tidemill: SCRIPT:1: ",
      ["local t = require 'tidemill' t.pool(1):apply(error, { 'remote', 0 })"]
        = "^tidemill: remote %(worker 1, pid %d+%)\nin the worker: .*in the script: ",
    } do
      local _, err, status = shell.run("TIDEMILL SCRIPT", text)
      assert.equal(1, status)
      assert.is_truthy(err:find(pattern), err)
    end
  end)
end)
