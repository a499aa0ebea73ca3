--- What specs need to know and do about processes, from /proc and through the FFI.

local ffi = require "ffi"

ffi.cdef [[
struct spec_timespec { long seconds, nanoseconds; };
int clock_gettime(int clock, struct spec_timespec *out);
int getpid(void);
int kill(int pid, int signal);
int poll(void *fds, unsigned long count, int timeout_ms);
int open(const char *path, int flags, ...);
int dup2(int from, int to);
]]

local processes = { SIGINT = 2, SIGABRT = 6, SIGKILL = 9, SIGSEGV = 11, SIGCONT = 18, SIGSTOP = 19 }

function processes.self() return ffi.C.getpid() end

function processes.kill(pid, signal) return ffi.C.kill(pid, signal) == 0 end

local O_WRONLY, STDERR = 1, 2

--- Have this process write its errors nowhere.
function processes.hush() ffi.C.dup2(ffi.C.open("/dev/null", O_WRONLY), STDERR) end

local CLOCK_MONOTONIC = 1
local time = ffi.new "struct spec_timespec"

--- Seconds of the monotonic clock.
function processes.clock()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

--- Wait for a condition, seconds at most. Looks again every millisecond.
function processes.eventually(seconds, condition)
  local deadline = processes.clock() + seconds
  repeat
    local met = condition()
    if met then return met end
    ffi.C.poll(nil, 0, 1)
  until processes.clock() > deadline
  return condition()
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

local function list(command)
  local process = assert(io.popen(command))
  local entries = {}
  for entry in process:lines() do entries[#entries + 1] = entry end
  process:close()
  return entries
end

--- Is there a process, not even a zombie?
function processes.exists(pid)
  return read(("/proc/%d/stat"):format(pid)) ~= nil
end

--- The letter of its state: R, S, T, Z ...; nil if there is no such process.
function processes.state(pid)
  return (read(("/proc/%d/stat"):format(pid)) or ""):match "%) (%a)"
end

--- Is there a process that has not ended? An orphan's zombie is init's, which may take its time.
function processes.is_alive(pid)
  local state = processes.state(pid)
  return state ~= nil and state ~= "Z"
end

--- Has a process group members that have not ended?
function processes.is_group_alive(group)
  if not processes.kill(-group, 0) then return false end
  for _, line in ipairs(list "cat /proc/[0-9]*/stat 2>/dev/null") do
    local state, its_group = line:match "%) (%a) %d+ (%d+)"
    if tonumber(its_group) == group and state ~= "Z" then return true end
  end
  return false
end

--- Has a session members that have not ended?
function processes.is_session_alive(session)
  for _, line in ipairs(list "cat /proc/[0-9]*/stat 2>/dev/null") do
    local state, its_session = line:match "%) (%a) %d+ %d+ (%d+)"
    if tonumber(its_session) == session and state ~= "Z" then return true end
  end
  return false
end

--- The name it gave itself; nil if there is no such process.
function processes.name(pid)
  return (read(("/proc/%d/comm"):format(pid)) or ""):match "^(.-)\n"
end

local function scan_children(pid)
  local found = {}
  for _, entry in ipairs(list "ls /proc") do
    local stat = entry:match "^%d+$" and read("/proc/" .. entry .. "/stat")
    local name, parent = (stat or ""):match "%((.*)%) %a (%d+)"
    -- not the shell and the ls that look
    if tonumber(parent) == pid and name:match "tidemill" then
      found[#found + 1] = tonumber(entry)
    end
  end
  return found
end

--- The children of a process, zombies too.
function processes.children(pid)
  local text = read(("/proc/%d/task/%d/children"):format(pid, pid))
  if not text then return processes.exists(pid) and scan_children(pid) or {} end
  local found = {}
  for child in text:gmatch "%d+" do found[#found + 1] = tonumber(child) end
  return found
end

--- The mappings of pools that a process has, and its descriptors.
function processes.holdings(pid)
  pid = pid or processes.self()
  local maps, mapped = read(("/proc/%d/maps"):format(pid)) or "", 0
  for _ in maps:gmatch "memfd:tidemill [^\n]*" do mapped = mapped + 1 end -- not the commons
  return mapped, #list(("ls /proc/%d/fd"):format(pid))
end

--- Resident kilobytes of a process.
function processes.resident(pid)
  return tonumber((read(("/proc/%s/status"):format(pid)) or ""):match "VmRSS:%s+(%d+)")
end

return processes
