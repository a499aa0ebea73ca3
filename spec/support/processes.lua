--- What specs need to know and do about processes, from /proc and through the FFI.

local ffi = require "ffi"

ffi.cdef [[
int getpid(void);
int kill(int pid, int signal);
int poll(void *fds, unsigned long count, int timeout_ms);
]]

local processes = { SIGKILL = 9, SIGINT = 2, SIGSEGV = 11, SIGABRT = 6 }

function processes.self() return ffi.C.getpid() end

function processes.kill(pid, signal) return ffi.C.kill(pid, signal) == 0 end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

--- Is there a process, not even a zombie?
function processes.exists(pid)
  return read(("/proc/%d/stat"):format(pid)) ~= nil
end

local function list(command)
  local process = assert(io.popen(command))
  local entries = {}
  for entry in process:lines() do entries[#entries + 1] = entry end
  process:close()
  return entries
end

--- The children of a process.
function processes.children(pid)
  local found = {}
  for _, entry in ipairs(list "ls /proc") do
    local stat = entry:match "^%d+$" and read("/proc/" .. entry .. "/stat")
    local name, parent = (stat or ""):match "%((.*)%) %a (%d+)"
    -- not the shell and the ls that look
    if tonumber(parent) == pid and name:match "tidemill" then found[#found + 1] = tonumber(entry) end
  end
  return found
end

--- Wait for a condition, seconds at most. Looks again every millisecond.
function processes.eventually(seconds, condition)
  for _ = 1, seconds * 1000 do
    local met = condition()
    if met then return met end
    ffi.C.poll(nil, 0, 1)
  end
  return condition()
end

--- What this process holds of pools: mapped arenas, and descriptors of the kinds that a pool has.
function processes.holdings()
  local mapped, descriptors = 0, 0
  for _ in read("/proc/self/maps"):gmatch "memfd:tidemill" do mapped = mapped + 1 end
  for _, line in ipairs(list(("ls -l /proc/%d/fd"):format(processes.self()))) do
    if line:find("eventfd", 1, true) or line:find("memfd:tidemill", 1, true) then
      descriptors = descriptors + 1
    end
  end
  return mapped, descriptors
end

--- Resident kilobytes of a process.
function processes.resident(pid)
  return tonumber((read(("/proc/%s/status"):format(pid)) or ""):match "VmRSS:%s+(%d+)")
end

return processes
