--- Files by which a spec and its jobs tell each other how far they are; jobs get the path.

local processes = require "support.processes"

local files = {}

local PATIENCE_S = 60

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

--- A gate that is shut: files.pass() waits before it until files.open().
---@return string path
function files.gate() return os.tmpname() end

files.open = os.remove

--- Wait until the gate is open.
function files.pass(path)
  assert(processes.eventually(PATIENCE_S, function() return not exists(path) end),
    "the gate was never opened")
end

--- A log without lines.
---@return string path
function files.log() return os.tmpname() end

--- Add a line, at once and whole.
function files.note(path, line)
  local file = assert(io.open(path, "a"))
  file:write(line, "\n")
  file:close()
end

--- Its lines, in order.
function files.lines(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  return lines
end

--- How often each line is there.
function files.tally(path)
  local counts = {}
  for line in io.lines(path) do counts[line] = (counts[line] or 0) + 1 end
  return counts
end

--- Add a line and return how often it is there now: which try of it this is.
function files.try(path, line)
  files.note(path, line)
  return files.tally(path)[tostring(line)]
end

--- Wait until the log has that many lines.
function files.await(path, count)
  assert(processes.eventually(PATIENCE_S, function() return #files.lines(path) >= count end),
    "the lines did not come")
end

--- Wait for a short time, without work.
function files.nap(seconds)
  processes.eventually(seconds, function() return false end)
end

return files
