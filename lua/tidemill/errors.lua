--- Error objects: what failed work is, as a value. Match `err.kind`, not the text.

local errors = {}

---@class tidemill.Error
---@field kind "task"|"worker"|"timeout"|"terminated"|"closed"|"encode"|"decode"|"broken"|"init"
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
local Error_mt = { __name = "tidemill.Error" }
errors.mt = Error_mt

local function where(err)
  local parts = {}
  if err.index then parts[#parts + 1] = ("item %d"):format(err.index) end
  if err.worker then parts[#parts + 1] = ("worker %d"):format(err.worker) end
  if err.pid then parts[#parts + 1] = ("pid %d"):format(err.pid) end
  return #parts > 0 and " (" .. table.concat(parts, ", ") .. ")" or ""
end

--- The message, where it happened, and the worker's traceback.
function Error_mt.__tostring(err)
  local text = tostring(err.message) .. where(err)
  if err.traceback then text = text .. "\nin the worker: " .. err.traceback end
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
