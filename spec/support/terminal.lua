--- Runs a script on a terminal of its own, under a shell with job control.

local ffi = require "ffi"
local processes = require "support.processes"
local shell = require "support.shell"

pcall(ffi.cdef, [[
struct spec_pollfd { int fd; short events, revents; };
int forkpty(int *master, char *name, const void *termios, const void *size);
int execl(const char *path, const char *arg, ...);
void _exit(int status);
long read(int fd, void *out, size_t size);
long write(int fd, const void *bytes, size_t size);
int close(int fd);
int waitpid(int pid, int *status, int options);
]])

local POLLIN, PATIENCE_S = 1, 20

local terminal = { CTRL_C = "\3", CTRL_Z = "\26", CTRL_BACKSLASH = "\28" }

---@class spec.Terminal
---@field text string  what was written so far
local Terminal = {}
Terminal.__index = Terminal

--- Start a shell line in which TIDEMILL stands for the command and SCRIPT for a file with `text`.
---@return spec.Terminal
function terminal.start(line, text)
  local path = shell.script(text)
  line = line:gsub("TIDEMILL%f[%s%z]", shell.command):gsub("SCRIPT", path)
  local master, none = ffi.new "int[1]", ffi.cast("const char *", nil)
  local pid = ffi.C.forkpty(master, nil, nil, nil)
  if pid == 0 then
    ffi.C.execl("/bin/sh", "sh", "-m", "-c", line, none)
    ffi.C._exit(127)
  end
  assert(pid > 0, "no pseudo-terminal")
  return setmetatable({ text = "", _fd = master[0], _pid = pid, _path = path }, Terminal)
end

--- Take in what there is. Returns false when nobody has the terminal open any more.
function Terminal:_read(patience_ms)
  local buffer = ffi.new "char[4096]"
  local fd = ffi.new("struct spec_pollfd", { fd = self._fd, events = POLLIN })
  if ffi.C.poll(fd, 1, patience_ms) <= 0 then return true end
  local size = tonumber(ffi.C.read(self._fd, buffer, 4096))
  if size <= 0 then return false end
  self.text = self.text .. ffi.string(buffer, size):gsub("\r\n", "\n")
  return true
end

--- Wait until `text` was written, after what was awaited before.
function Terminal:await(text)
  local deadline = processes.clock() + PATIENCE_S
  local from = self._from or 1
  while not self.text:find(text, from, true) do
    local open = self:_read(10)
    assert(open and processes.clock() < deadline or self.text:find(text, from, true),
      ("'%s' did not come, but: %s"):format(text, self.text))
  end
  self._from = select(2, self.text:find(text, from, true)) + 1
end

function Terminal:type(keys) ffi.C.write(self._fd, keys, #keys) end

--- Hang up: the terminal is gone.
function Terminal:hang_up()
  ffi.C.close(self._fd)
  self._fd = nil
end

--- Wait for the end of the shell. Proves that nothing of the session is left.
---@return string text  all that was written
function Terminal:finish()
  local status = ffi.new "int[1]"
  local deadline = processes.clock() + PATIENCE_S
  while self._fd and self:_read(10) do
    assert(processes.clock() < deadline, "the terminal is still open: " .. self.text)
  end
  assert(processes.eventually(PATIENCE_S, function()
    return ffi.C.waitpid(self._pid, status, 1) == self._pid
  end), "the shell does not end")
  if self._fd then self:hang_up() end
  os.remove(self._path)
  assert(processes.eventually(5, function() return not processes.is_session_alive(self._pid) end),
    "processes are left")
  return self.text
end

return terminal
