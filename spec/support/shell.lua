--- Runs the command from specs.

local processes = require "support.processes"

local shell = {}

shell.command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")
shell.build = assert(os.getenv "TIDEMILL_BUILD", "TIDEMILL_BUILD must name the build tree")

function shell.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

--- A script in a file, whose name is returned.
function shell.script(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

--- Run a shell line in which TIDEMILL stands for the command, SCRIPT for a file with `text`.
---@return string stdout, string stderr, integer status
---@param prefix? string  of the shell that runs it
function shell.run(line, text, prefix)
  local errors, path = os.tmpname(), shell.script(text or "")
  line = line:gsub("TIDEMILL%f[%s%z]", shell.command):gsub("SCRIPT", path)
  local lines = shell.script(line)
  local process = assert(io.popen(("%ssh %s 2>%s; echo \" status $?\""):format(prefix or "", lines,
    errors)))
  local output = process:read "*a"
  process:close()
  os.remove(lines)
  local err = shell.read(errors)
  os.remove(errors)
  os.remove(path)
  local out, status = output:match "^(.*) status (%d+)\n$"
  return out, (err:gsub(path:gsub("%p", "%%%0"), "SCRIPT")), tonumber(status)
end

--- The same in a session of its own. Proves that nothing of it is left.
function shell.run_alone(line, text)
  local log = os.tmpname()
  local out, err, status = shell.run(("echo $$ >%s\n%s"):format(log, line), text, "setsid -w ")
  local session = tonumber(shell.read(log))
  os.remove(log)
  assert(processes.eventually(5, function() return not processes.is_session_alive(session) end),
    "processes are left")
  return out, err, status
end

--- Start a script in a session, and so a process group, of its own. In it `mark(text)` tells the
--- spec how far it is, and `pool` has two workers.
---@param text string
---@param program? string      another than the command, or that with options
---@param environment? string  "NAME=VALUE ..."
function shell.start(text, program, environment)
  local run = { mark = os.tmpname(), errors = os.tmpname(), output = os.tmpname() }
  os.remove(run.mark)
  run.path = shell.script(([[
    local ffi, tidemill = require "ffi", require "tidemill"
    ffi.cdef "int getpid(void); int poll(void *, unsigned long, int);"
    local function mark(text)
      local file = assert(io.open("%s~", "w"))
      file:write(ffi.C.getpid(), "\n", text or "")
      file:close()
      os.rename("%s~", "%s")
    end
    local pool = tidemill.pool(2)
  ]]):format(run.mark, run.mark, run.mark) .. text)
  -- What the shell says about its end is not the script's.
  local line = "exec 2>/dev/null; (exec env %s setsid -w %s %s >%s 2>%s); echo $?"
  run.process = assert(io.popen(line:format(environment or "", program or shell.command, run.path,
    run.output, run.errors)))
  local file = assert(processes.eventually(10, function() return io.open(run.mark) end),
    "the script did not come to its mark")
  run.pid = tonumber(file:read "*l")
  run.text = file:read "*a"
  file:close()
  return run
end

--- Wait for its end and for that of everything it started.
---@return string stdout, string stderr, integer status
function shell.finish(run)
  local status = tonumber(run.process:read "*a")
  run.process:close()
  local output, err = shell.read(run.output), shell.read(run.errors)
  for _, name in ipairs { "mark", "errors", "output", "path" } do os.remove(run[name]) end
  assert(processes.eventually(5, function() return not processes.is_group_alive(run.pid) end),
    "processes are left")
  return output, err, status
end

return shell
