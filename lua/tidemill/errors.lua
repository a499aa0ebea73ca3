--- Error objects: what failed work is, as a value. Match `err.kind`, not the text.

local errors = {}

---@alias tidemill.ErrorKind
---| "task"|"worker"|"timeout"|"cancelled"|"terminated"|"closed"|"encode"|"decode"|"broken"|"init"
---| "share"

---@class tidemill.Error
---@field kind tidemill.ErrorKind
---@field message string
---@field traceback? string  the worker's, with the script's file and line
---@field value? any         what the job raised, whatever its type
---@field index? integer     which item failed, from 1
---@field item? any          that item
---@field worker? integer    the worker's number, from 1
---@field pid? integer       its process
---@field signal? integer    what it was killed by, kind "worker"
---@field exitcode? integer  what it ended with, kind "worker"
---@field attempts? integer  how often the item was tried
---@field printed? boolean   a process has printed it to stderr, with the traceback
local Error_mt = { __name = "tidemill.Error" }
errors.mt = Error_mt

--- What the message does not say itself.
local function where(err)
  local parts, message = {}, tostring(err.message)
  local function add(text)
    if not message:find(text, 1, true) then parts[#parts + 1] = text end
  end
  if err.index then add(("item %d"):format(err.index)) end
  if err.worker then add(("worker %d"):format(err.worker)) end
  if err.pid then add(("pid %d"):format(err.pid)) end
  return #parts > 0 and " (" .. table.concat(parts, ", ") .. ")" or ""
end

--- The message, where it happened, and the worker's traceback, unless that was printed.
function Error_mt.__tostring(err)
  local text = tostring(err.message) .. where(err)
  if err.traceback and not err.printed then
    local place = err.worker and "\nin the worker: " or "\nin the script: "
    text = text .. place .. err.traceback:gsub("\n%s*%[C%]: at 0x%x+", "")
  end
  return text
end

--- Make an error object.
---@param fields table  `kind` and `message` at least
---@return tidemill.Error
function errors.new(fields)
  return setmetatable(fields, Error_mt)
end

---@param value any
---@return boolean
function errors.is_error(value)
  return getmetatable(value) == Error_mt
end

return errors
