-- How scripts end: by signals, by closed and full outputs, by exits from anywhere. Nothing hangs,
-- no line is lost, nothing is left.

local processes = require "support.processes"
local shell = require "support.shell"

local SOON_S = 2 -- also on a busy machine

local STOCK = { "luajit", ("LUA_CPATH='%s/?.so;;'"):format(shell.build) }
local programs = { ["the command"] = {}, ["a stock luajit"] = STOCK }

local signals = { TERM = 15, HUP = 1 }

local scripts = {
  { "waits for workers", "pool:map(function() while true do end end, { 1, 2, 3 }, 1)" },
  { "waits for an initializer",
    "tidemill.pool { processes = 2, initializer = function() while true do end end }" },
  { "runs compiled code", "while true do end" },
  { "catches every error", "while true do pcall(function() while true do end end) end" },
  { "sits in a system call", "ffi.C.poll(nil, 0, 30000)" },
  { "has 50 workers, half of them stopped", [[
    local many = tidemill.pool(50)
    local result = many:map_async(function(x)
      local C = require "ffi"
      C.cdef "int getpid(void); int kill(int, int); int poll(void *, unsigned long, int);"
      if x % 2 == 0 then C.C.kill(C.C.getpid(), 19) end
      while true do C.C.poll(nil, 0, 1000) end
    end, tidemill.range(1, 50), 1)
    result:wait(0.1)
    result:get()]] },
}

describe("a signal to end", function()
  for _, case in ipairs(scripts) do
    local what, text = unpack(case)
    for name, number in pairs(signals) do
      it(("SIG%s ends a script that %s, its output written"):format(name, what), function()
        local run = shell.start("io.write 'before\\n' mark() " .. text)
        local before = processes.clock()
        assert.is_true(processes.kill(run.pid, number))
        local output, err, status = shell.finish(run)
        assert.equal("", err)
        assert.equal("before\n", output)
        assert.equal(128 + number, status)
        assert.is_true(processes.clock() - before < SOON_S)
      end)
    end
  end

  it("is left alone where it was ignored at the start", function()
    for name, number in pairs(signals) do
      local out, err, status = shell.run(("(trap '' %s; exec TIDEMILL SCRIPT)"):format(name), ([[
        local ffi = require "ffi"
        ffi.cdef "int getpid(void); int kill(int, int);"
        ffi.C.kill(ffi.C.getpid(), %d)
        print(require("tidemill").pool(1):apply(math.abs, { -1 }))]]):format(number))
      assert.equal("1\n", out)
      assert.equal("", err)
      assert.equal(0, status)
    end
  end)

  it("ends a script that writes and is not read", function()
    local fifo = os.tmpname()
    for name, number in pairs { INT = 2, TERM = 15, HUP = 1 } do
      local _, _, status = shell.run_alone(([[
        rm -f %s; mkfifo %s
        exec 3<>%s
        exec 2>/dev/null # the shell tells how it ended
        env --default-signal TIDEMILL SCRIPT >&3 & pid=$!
        while [ ! -e %s~ ]; do :; done
        rm %s~
        kill -%s $pid; wait $pid]]):gsub("%%s", fifo, 5):format(name), ([[
        local line = ("x"):rep(100)
        for i = 1, 1e5 do
          if i == 600 then io.open("%s~", "w"):close() end
          print(line)
        end]]):format(fifo))
      assert.equal(128 + number, status, name)
    end
    os.remove(fifo)
  end)
end)

describe("output that nobody reads", function()
  local writers = {
    ["of the script"] = "while true do print 'line' end",
    ["of the script, from results"] = [[
      for _ in pool:imap("x -> x", tidemill.range(1, 1e9)) do print "line" end]],
    ["of jobs"] = [[
      pool:map(function() print "line" end, tidemill.range(1, 1e9), 1)]],
    ["of jobs, one after the other"] = [[
      while true do pool:apply(function() print "line" end) end]],
    ["of jobs in a stream"] = [[
      for _ in pool:imap_unordered(function() print "line" end, tidemill.range(1, 1e9)) do end]],
  }
  for what, text in pairs(writers) do
    it(what .. " ends the command as quietly as any other", function()
      local out, err = shell.run_alone("{ TIDEMILL SCRIPT; echo $? >&2; } | head -n 1",
        "local tidemill = require 'tidemill' local pool = tidemill.pool(2) " .. text)
      assert.equal("line\n", out)
      assert.equal("141\n", err)
    end)
  end

  it("of something else that a job writes to is an error like others", function()
    local _, err, status = shell.run_alone("TIDEMILL SCRIPT | cat", [[
      local pool = require "tidemill".pool(1)
      pool:apply(function()
        local pipe = io.popen("exec true", "w")
        while true do pipe:write(("x"):rep(1000)) pipe:flush() end
      end)]])
    assert.is_truthy(err:find("signal 13", 1, true), err)
    assert.equal(0, status) -- cat's
  end)
end)

describe("standard descriptors", function()
  local script = [[
    local tidemill = require "tidemill"
    local function check(start_method)
      local pool = tidemill.pool { processes = 2, start_method = start_method }
      local results = pool:map(function(x)
        io.write("job ", x, "\n")
        io.stderr:write("job ", x, "\n")
        return tostring(io.read "*a") .. x
      end, { 1, 2, 3 }, 1)
      assert(table.concat(results) == "123")
      pool:close()
      pool:join()
    end
    check "fork"
    check "spawn"
    os.exit(7)]]

  it("may be closed, each and all", function()
    for mask = 1, 7 do
      local closed = {}
      if mask % 2 == 1 then closed[1] = "<&-" end
      if mask % 4 >= 2 then closed[#closed + 1] = ">&-" end
      if mask >= 4 then closed[#closed + 1] = "2>&-" end
      local line = table.concat(closed, " ")
      local out, _, status = shell.run_alone("TIDEMILL SCRIPT " .. line, script)
      assert.equal(mask % 4 >= 2 and 1 or 7, status, line)
      if not line:find(">&-", 1, true) then assert.is_truthy(out:find "job 3") end
    end
  end)

  it("that are closed cannot be written to, which is said", function()
    local _, err, status = shell.run "TIDEMILL -e 'print(1)' >&-"
    assert.equal(1, status)
    assert.is_truthy(err:find("cannot write output: Bad file descriptor", 1, true), err)
    _, err, status = shell.run "TIDEMILL -e 'x = 1' >&-"
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("that are full are an error, wherever the script ends", function()
    for _, code in ipairs {
      "print(1)", "print(1) os.exit(0)", "for i = 1, 1e5 do print(i) end", "print(1) error 'no'",
      "print(1) require 'tidemill'.with(2, function() os.exit(true) end)",
    } do
      local _, err, status = shell.run_alone(("TIDEMILL -e \"%s\" >/dev/full"):format(code))
      assert.is_truthy(err:find("tidemill: cannot write output", 1, true), err)
      assert.equal(1, status)
    end
  end)

  it("that are full or closed are an error for workers too", function()
    local before = "local tidemill = require 'tidemill' "
    for what, text in pairs {
      ["a job"] = "tidemill.with(2, function(pool) pool:map(print, { 1, 2, 3, 4 }, 1) end)",
      ["a job that exits"] = [[tidemill.with(1, function(pool)
        pool:submit(function() io.write "part" os.exit(0) end):wait()
      end)]],
      ["an initializer's finalizer"] = [[tidemill.with({ processes = 1, initializer = function()
        LAST = newproxy(true)
        getmetatable(LAST).__gc = function() io.write "part" end
      end }, type)]],
      ["a copy"] = [[tidemill.with({ processes = 1, inherit = true }, function(pool)
        pool:apply(print, { 1 })
      end)]],
      ["an executed one"] = [[tidemill.with({ processes = 1, start_method = "spawn" },
        function(pool) pool:apply(print, { 1 }) end)]],
      ["a process"] = "local p = tidemill.process(print, { 1 }) p:start() p:join()",
      ["a nested pool"] = [[tidemill.with(1, function(pool)
        pool:apply(function()
          require "tidemill".with(1, function(inner) inner:apply(print, { 1 }) end)
        end)
      end)]],
    } do
      for _, output in ipairs { ">/dev/full", ">&-" } do
        local _, err, status = shell.run_alone("TIDEMILL SCRIPT " .. output, before .. text)
        assert.is_truthy(err:find("^tidemill: worker %d %(pid %d+%) cannot write its output\n"),
          what .. output .. err)
        assert.equal(1, status, what .. output)
      end
    end
  end)
end)

describe("an exit", function()
  local exits = {
    ["os.exit()"] = 0, ["os.exit(true)"] = 0, ["os.exit(false)"] = 1, ["os.exit(6)"] = 6,
    ["os.exit(6, true)"] = 6,
  }
  local places = {
    ["a callback"] = "pool:submit(print):get() pool:apply_async(math.abs, { 1 }, "
      .. "{ callback = function() EXIT end }):get()",
    ["a callback that another wait calls"] = "pool:apply_async(math.abs, { 1 }, "
      .. "{ callback = function() EXIT end }) while true do pool:apply(math.abs, { 2 }) end",
    ["a coroutine"] = "coroutine.wrap(function() pool:apply(math.abs, { 1 }) EXIT end)()",
    ["the body of a stream"] = "for i in pool:imap(math.abs, tidemill.range(1, 1e9)) do "
      .. "if i == 100 then EXIT end end",
    ["an iterator of items"] = "local n = 0 pool:map(math.abs, function() n = n + 1 "
      .. "if n == 1000 then EXIT end return n end)",
    ["a with block"] = "tidemill.with(2, function(p) p:submit(math.abs, 1) EXIT end)",
    ["who watches the progress"] = "pool:map(math.abs, tidemill.range(1, 1e5), "
      .. "{ progress = function() EXIT end })",
    ["a hook that encodes"] = "pool:apply(type, { setmetatable({}, { __tidemill = "
      .. "{ encode = function() EXIT end, decode = print } }) })",
    ["an event loop"] = "pool:submit(math.abs, 1) pool:fd() pool:poll(1) EXIT",
  }
  for program, words in pairs(programs) do
    local used = words == STOCK and { ["os.exit(6)"] = 6, ["os.exit(6, true)"] = 6 } or exits
    it(("of %s may come from anywhere, with work under way"):format(program), function()
      for place, text in pairs(places) do
        for exit, expected in pairs(used) do
          local run = shell.start("pool:submit(function() while true do end end) "
            .. "pool = tidemill.pool(2) pool:map_async(function(x) return x end, "
            .. "tidemill.range(1, 1000)) io.write 'unflushed' mark() "
            .. text:gsub("EXIT", exit), words[1], words[2])
          local output, err, status = shell.finish(run)
          assert.equal("", err, place)
          assert.equal("unflushed", output:gsub("\n", ""), place)
          assert.equal(expected, status, place .. " " .. exit)
        end
      end
    end)
  end
end)

describe("a stock luajit", function()
  it("is interrupted wherever it waits, and goes on if it catches that", function()
    for _, text in ipairs {
      "pool:map(function() while true do end end, { 1, 2, 3 }, 1)",
      "pool:submit(function() while true do end end):get()",
      "for _ in pool:imap(function() while true do end end, { 1, 2 }) do end",
      "local p = tidemill.pool(1) p:submit(function() while true do end end) p:close() p:join()",
      "tidemill.pool { processes = 2, initializer = function() while true do end end }",
    } do
      local run = shell.start(("print(pcall(function() mark() %s end)) print(tidemill.with(1, "
        .. "function(p) return p:apply(math.abs, { -7 }) end))"):format(text), STOCK[1], STOCK[2])
      assert.is_true(processes.kill(-run.pid, processes.SIGINT))
      local output, err, status = shell.finish(run)
      assert.equal("", err)
      assert.is_truthy(output:find("^false\t[^\n]*interrupted!\n7\n$"), output)
      assert.equal(0, status)
    end
  end)

  it("leaves nothing when a signal ends it", function()
    for _, number in ipairs { 15, 1, 9 } do
      local run = shell.start(
        "pool:map_async(function() while true do end end, { 1, 2, 3 }, 1) mark() pool:apply(print)",
        STOCK[1], STOCK[2])
      assert.is_true(processes.kill(run.pid, number))
      local _, _, status = shell.finish(run)
      assert.equal(128 + number, status)
    end
  end)
end)

describe("what a job printed", function()
  it("is there, line by line, however its worker ends", function()
    local out = shell.run_alone("TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      local ffi = require "ffi"
      ffi.cdef "int getpid(void); int kill(int, int);"
      local ways = {
        function() error "no" end, function() os.exit(1) end,
        function()
          local C = require "ffi"
          C.cdef "int getpid(void); int kill(int, int);"
          C.C.kill(C.C.getpid(), 9)
        end,
        function() require "ffi".cast("int *", 8)[0] = 1 end,
        function() while true do end end,
      }
      local pool = tidemill.pool(2)
      for i, way in ipairs(ways) do
        pool:apply_async(function()
          print("first", i)
          io.write("second\t", i, "\n")
          way()
        end, {}, { timeout = 0.5 }):wait()
      end
      local result = pool:submit(function()
        print "third"
        while true do end
      end)
      result:wait(0.2)
      pool:terminate()]])
    local seen = {}
    for line in out:gmatch "[^\n]+" do seen[line] = (seen[line] or 0) + 1 end
    for i = 1, 5 do
      assert.equal(1, seen["first\t" .. i])
      assert.equal(1, seen["second\t" .. i])
    end
    assert.equal(1, seen.third)
  end)
end)

describe("two killed at once", function()
  local names = { "host", "supervisor", "worker", "other worker" }
  for i = 1, #names do
    for k = i + 1, #names do
      it(("%s and %s leave nothing, and nobody waits"):format(names[i], names[k]), function()
        local run = shell.start [[
          local inner = pool:map_async(function(x)
            return require "tidemill".pool(1):apply(function() while true do end end)
          end, { 1, 2, 3 }, 1)
          inner:wait(0.05)
          mark(table.concat(pool:workers(), " "))
          local ok, err = inner:try()
          print(ok, err.kind)
          local _, again = pcall(pool.map, pool, math.abs, { 1 })
          print(type(again) == "table" and again.kind or again)]]
        local pids = { run.pid, processes.children(run.pid)[1] }
        for pid in run.text:gmatch "%d+" do pids[#pids + 1] = tonumber(pid) end
        processes.kill(pids[i], processes.SIGKILL)
        processes.kill(pids[k], processes.SIGKILL)
        local output, _, status = shell.finish(run)
        if i == 1 then
          assert.equal(137, status)
        else
          assert.equal(0, status)
          local kinds = i == 2 and { broken = true } or { worker = true }
          if i == 2 then kinds.worker = true end -- it may have been the first to be noticed
          assert.is_true(kinds[output:match "false\t(%w+)\n"], output)
        end
      end)
    end
  end
end)
