-- The command as a job of a shell on a terminal: its keys, and time that stands still.

local files = require "support.files"
local processes = require "support.processes"
local shell = require "support.shell"
local terminal = require "support.terminal"

local script = [[
  package.path = %q
  local files = require "support.files"
  local tidemill = require "tidemill"
  local pool = tidemill.pool(3)
  local gate, log = %q, %q
  local result = pool:map_async(function(x)
    files.note(log, require "tidemill".worker().pid)
    files.pass(gate)
    return x
  end, { 1, 2, 3 }, { chunksize = 1, timeout = %s })
  print "sent"
  io.stdout:flush()
  print("sum", unpack(result:get()))
]]

local function states(pids)
  local letters = {}
  for i, pid in ipairs(pids) do letters[i] = processes.state(pid) or "-" end
  return table.concat(letters)
end

describe("on a terminal", function()
  local gate, log

  before_each(function() gate, log = files.gate(), files.log() end)
  after_each(function()
    os.remove(gate)
    os.remove(log)
  end)

  --- Start the script and wait until each item is in hand.
  local function start(line, timeout)
    local run = terminal.start(line, script:format(package.path, gate, log, timeout or "nil"))
    run:await "sent"
    files.await(log, 3)
    return run, files.lines(log)
  end

  it("Ctrl-C ends the command with one line", function()
    local run = start "TIDEMILL SCRIPT; echo status $?"
    run:type(terminal.CTRL_C)
    run:await "status 130"
    assert.equal("sent\n^Ctidemill: interrupted\nstatus 130\n", run:finish())
  end)

  local executes = [[
    for i = 1, 3 do
      os.execute "%s"
      print("round", i)
    end]]

  --- What is executed writes the lines that it reads: wait until it does.
  local function await_echo(run)
    run:type "echo\n"
    run:await "echo\n"
    run:await "echo\n"
  end

  for what, command in pairs {
    ["a command"] = "cat",
    ["a command of a shell of a command"] = "(sh -c 'cat; true'); true",
    ["the command itself"] = shell.command .. " -e 'print(io.read()) while true do end'",
  } do
    it("Ctrl-C ends " .. what .. " that os.execute waits for, and the script", function()
      local run = terminal.start("TIDEMILL SCRIPT; echo status $?", executes:format(command))
      await_echo(run)
      run:type(terminal.CTRL_C)
      run:await "status 130"
      local text = run:finish()
      assert.is_nil(text:find("round", 1, true), text)
      assert.is_truthy(text:find("tidemill: interrupted\nstatus", 1, true), text)
    end)
  end

  it("Ctrl-C is left to a command that means something else by it", function()
    local run = terminal.start("TIDEMILL SCRIPT; echo status $?",
      executes:format "trap 'echo heard; exit 0' INT; echo begun; read line")
    for i = 1, 3 do
      run:await "begun"
      run:type(terminal.CTRL_C)
      run:await "heard"
      run:await("round\t" .. i)
    end
    run:await "status 0"
    run:finish()
  end)

  it("Ctrl-C ends what a session executes, and not the session", function()
    local run = terminal.start("TIDEMILL -i; echo status $?", "")
    run:await "> "
    run:type 'os.execute "cat" print "round"\n'
    await_echo(run)
    run:type(terminal.CTRL_C)
    run:await "tidemill: interrupted"
    run:type "print(6 * 7)\n"
    run:await "42"
    run:type "\4"
    run:await "status 0"
    run:finish()
    assert.is_nil(run.text:find "\nround")
  end)

  it("Ctrl-\\ kills all of it", function()
    local run = start "ulimit -c 0; TIDEMILL SCRIPT; echo status $?"
    run:type(terminal.CTRL_BACKSLASH)
    run:await "status 131"
    run:finish()
  end)

  it("Ctrl-Z stops all of it, and fg goes on", function()
    local run, workers = start "TIDEMILL SCRIPT; echo stopped; read x; fg; echo status $?"
    run:type(terminal.CTRL_Z)
    run:await "stopped"
    assert.is_truthy(processes.eventually(10, function() return states(workers) == "TTT" end),
      states(workers))
    files.open(gate)
    run:type "\n"
    run:await "sum\t1\t2\t3"
    run:await "status 0"
    run:finish()
  end)

  it("Ctrl-Z stops time limits", function()
    local limit_s = 2.5
    local run, workers = start("TIDEMILL SCRIPT; echo stopped; read x; fg; echo status $?", limit_s)
    run:type(terminal.CTRL_Z)
    run:await "stopped"
    files.nap(limit_s + 0.2)
    assert.equal("TTT", states(workers))
    run:type "\n"
    assert.is_truthy(processes.eventually(10, function()
      return not states(workers):find "T"
    end))
    files.nap(0.3) -- still in hand, long after the limit by the clock on the wall
    files.open(gate)
    run:await "sum\t1\t2\t3"
    run:await "status 0"
    run:finish()
  end)

  it("a limit goes on where Ctrl-Z stopped it", function()
    local run = start("TIDEMILL SCRIPT; echo stopped; read x; fg; echo status $?", 1)
    run:type(terminal.CTRL_Z)
    run:await "stopped"
    run:type "\n"
    run:await "was killed after 1 s"
    run:await "status 1"
    run:finish()
  end)

  it("Ctrl-Z stops workers that are about to leave, and harms none", function()
    local run = terminal.start("TIDEMILL SCRIPT; echo stopped; read x; fg; echo status $?", ([[
      package.path = %q
      local tidemill = require "tidemill"
      local function initialize(log, gate)
        local files = require "support.files"
        LEAVING = newproxy(true)
        getmetatable(LEAVING).__gc = function()
          files.note(log, require "tidemill".worker().pid)
          files.pass(gate)
          files.note(log, "left")
        end
      end
      local pool = tidemill.pool { processes = 3, initializer = initialize, initargs = { %q, %q } }
      pool:close()
      pool:join()
      print "joined"]]):format(package.path, log, gate))
    files.await(log, 3)
    local workers = files.lines(log)
    run:type(terminal.CTRL_Z)
    run:await "stopped"
    files.nap(3) -- longer than anybody has patience with who is stopped alone
    assert.equal("TTT", states(workers))
    files.open(gate)
    run:type "\n"
    run:await "joined"
    run:await "status 0"
    run:finish()
    assert.equal(3, files.tally(log).left)
  end)

  it("hanging up ends all of it", function()
    local run, workers = start "TIDEMILL SCRIPT"
    run:hang_up()
    run:finish()
    assert.is_truthy(processes.eventually(10, function()
      for _, pid in ipairs(workers) do
        if processes.is_alive(pid) then return false end
      end
      return true
    end))
  end)

  it("reading in the background stops it until it comes to the front", function()
    local line = "TIDEMILL SCRIPT & sleep 0.1; echo front; read x; fg; echo status $?"
    local run = terminal.start(line, [[
      local pool = require "tidemill".pool(2)
      local line = io.read "*l"
      print(unpack(pool:map("x -> x .. '!'", { line, line })))]])
    run:await "front"
    run:type "\n"
    run:type "word\n"
    run:await "word!\tword!"
    run:await "status 0"
    run:finish()
  end)
end)
