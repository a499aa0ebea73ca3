--- Many numbers, or structs, that every process sees: `tidemill.array("double", 1e6)`, and the same
--- in rows: `tidemill.matrix`.
---
--- An array is an FFI struct with the pointer that element 1 is 1 behind, so that `a[i]` compiles to
--- two comparisons and a load. Parts of one (`slice`, `row`) are arrays too, and hold the whole.

local check = require "tidemill.check"
local core = require "tidemill.core"
local data = require "tidemill.shared.data"
local ffi = require "ffi"
local shared = require "tidemill.shared"

local floor = math.floor

local array = {}

local MOST = 2 ^ 31 - 1 -- elements that a 32-bit count says

---@class tidemill.Array
---@field data fun(self): ffi.cdata*   the C pointer to element 1; good while the array is held
---@field slice fun(self, first?: integer, last?: integer): tidemill.Array  a view of a part
---@field copy fun(self, source?: table|tidemill.Array): tidemill.Array
---@field totable fun(self): any[]
---@field fill fun(self, value: any): tidemill.Array
---@field lock fun(self, timeout?: number): boolean, string?
---@field unlock fun(self)
---@field with fun(self, fn: function): any ...

---@class tidemill.Matrix: tidemill.Array
---@field rows integer
---@field cols integer
---@field get fun(self, row: integer, col: integer): any
---@field set fun(self, row: integer, col: integer, value: any)
---@field row fun(self, row: integer): tidemill.Array  a view of a row

-- ---- what goes wrong ----

local function refuse_index(self, key, level)
  local count = tonumber(self.count)
  if type(key) ~= "number" then
    error(("an array has elements 1 to %d and methods, not '%s'"):format(count, tostring(key)),
      level + 1)
  end
  error(("index %s is out of bounds: the array has %d elements"):format(tostring(key), count),
    level + 1)
end

local function refuse_place(self, row, col, level)
  error(("row %s, column %s is out of bounds: the matrix has %d rows and %d columns"):format(
    tostring(row), tostring(col), tonumber(self.rows), tonumber(self.cols)), level + 1)
end

local function check_source(self, source)
  local count = type(source) == "table" and #source or tonumber(source.count)
  if count ~= self.count then
    check.fail("copy", ("the source has %d elements, the array %d"):format(count,
      tonumber(self.count)), 3)
  end
end

-- ---- types ----

local function describe(self)
  return shared.kinds.array, self.from, self.whole and -1 or tonumber(self.count)
end

-- Text and not a function: `count` is read as what it is, and code is compiled for each type apart.
local access = [[
local floor, methods, refuse = ...
local function index(self, key)
  if type(key) == "number" then
    if key >= 1 and key <= self.count and floor(key) == key then return self.origin[key] end
    refuse(self, key, 2)
  end
  return methods[key]
end
local function newindex(self, key, value)
  if type(key) == "number" and key >= 1 and key <= self.count and floor(key) == key then
    self.origin[key] = value
  else
    refuse(self, key, 2)
  end
end
return index, newindex
]]

local function equal(a, b)
  return type(a) == "cdata" and type(b) == "cdata" and ffi.typeof(a) == ffi.typeof(b)
    and a.place == b.place and a.generation == b.generation and a.from == b.from
    and a.count == b.count
end

--- A struct with the methods, for elements of a type and the type of a count.
local function make_type(element, methods, count, extra)
  local pointer = ffi.typeof("$ *", element)
  local struct = ffi.typeof(([[struct {
    $ origin; %s count; %s uint32_t place, generation; double from; bool whole;
  }]]):format(count, extra), pointer)
  shared.register(struct, describe)
  local index, newindex = loadstring(access, "=tidemill.shared.array")(floor, methods, refuse_index)
  local new = ffi.metatype(struct, {
    __index = index,
    __newindex = newindex,
    __len = function(self) return tonumber(self.count) end,
    __eq = equal,
    __gc = function(self) shared.drop(self.place, self.generation) end,
    __tostring = function(self)
      return ("tidemill.array: %d x %s"):format(tonumber(self.count),
        tostring(element):match "<(.*)>")
    end,
  })
  return { new = new, pointer = pointer }
end

-- ---- methods ----

local function array_methods(family)
  local methods = { lock = data.lock, unlock = data.unlock, with = data.with }

  function methods:data() return self.origin + 1 end

  function methods:slice(first, last)
    first, last = first or 1, last or tonumber(self.count)
    if type(first) ~= "number" or type(last) ~= "number" or first < 1 or last > self.count
      or last < first - 1 or first % 1 ~= 0 or last % 1 ~= 0 then
      check.fail("slice", ("%s to %s is no part of 1 to %d"):format(tostring(first),
        tostring(last), tonumber(self.count)), 3)
    end
    return family.view(self, first - 1, last - first + 1)
  end

  function methods:fill(value)
    local origin = self.origin
    for i = 1, tonumber(self.count) do origin[i] = value end
    return self
  end

  function methods:totable()
    local origin, copy = self.origin, {}
    for i = 1, tonumber(self.count) do copy[i] = family.plain(origin[i]) end
    return copy
  end

  function methods:copy(source)
    if source == nil then
      local made = family.new_like(self)
      ffi.copy(made:data(), self:data(), tonumber(self.count) * family.bytes)
      return made
    end
    if type(source) ~= "table" and not family.is(source) then
      check.fail("copy", "the source must be a table or an array of the same type", 3)
    end
    check_source(self, source)
    if type(source) == "table" then
      local origin = self.origin
      for i = 1, #source do origin[i] = source[i] end
    else -- they may overlap
      family.move(self:data(), source:data(), tonumber(self.count) * family.bytes)
    end
    return self
  end

  return methods
end

local function matrix_methods(family)
  local methods = array_methods(family)

  function methods:get(row, col)
    if row >= 1 and row <= self.rows and col >= 1 and col <= self.cols
      and floor(row) == row and floor(col) == col then
      return self.origin[(row - 1) * self.cols + col]
    end
    refuse_place(self, row, col, 2)
  end

  function methods:set(row, col, value)
    if row >= 1 and row <= self.rows and col >= 1 and col <= self.cols
      and floor(row) == row and floor(col) == col then
      self.origin[(row - 1) * self.cols + col] = value
    else
      refuse_place(self, row, col, 2)
    end
  end

  function methods:row(row)
    if type(row) ~= "number" or row < 1 or row > self.rows or floor(row) ~= row then
      check.fail("row", ("%s is out of bounds: the matrix has %d rows"):format(tostring(row),
        tonumber(self.rows)), 3)
    end
    return family.view(self, (row - 1) * self.cols, tonumber(self.cols))
  end

  return methods
end

pcall(ffi.cdef, "void *memmove(void *to, const void *from, size_t size);")

--- All about the arrays and matrices of an element type.
local function make_family(name)
  local element = ffi.typeof(name)
  local family = { bytes = ffi.sizeof(element), move = ffi.C.memmove }
  local is_struct = data.is_struct(name)
  local arrays, matrices = array_methods(family), matrix_methods(family)
  local small = {
    array = make_type(element, arrays, "int32_t", ""),
    matrix = make_type(element, matrices, "int32_t", "int32_t rows, cols;"),
  }
  local large = {
    array = make_type(element, arrays, "double", ""),
    matrix = make_type(element, matrices, "double", "double rows, cols;"),
  }
  local function types_for(count) return count > MOST and large or small end

  function family.plain(value) return is_struct and element(value) or value end

  function family.is(value)
    for _, types in ipairs { small, large } do
      if ffi.istype(types.array.new, value) or ffi.istype(types.matrix.new, value) then
        return true
      end
    end
    return false
  end

  --- A value for an object, or a part of it, whose hold it gets.
  function family.open(place, generation, address, rows, cols, is_matrix)
    local count = rows * cols
    local made = types_for(count)[is_matrix and "matrix" or "array"]
    local origin = ffi.cast(made.pointer, address) - 1
    if is_matrix then
      return made.new(origin, count, rows, cols, place, generation, 0, true)
    end
    return made.new(origin, count, place, generation, 0, true)
  end

  --- A part of an array that is held.
  function family.view(whole, from, count)
    local made = types_for(count).array
    core.hold(whole.place, whole.generation)
    return made.new(whole.origin + from, count, whole.place, whole.generation, whole.from + from,
      false)
  end

  function family.new_like(whole)
    local is_matrix = ffi.istype(small.matrix.new, whole) or ffi.istype(large.matrix.new, whole)
    return array.make("copy", name, family.bytes, is_matrix and tonumber(whole.rows) or 1,
      tonumber(is_matrix and whole.cols or whole.count), is_matrix)
  end

  return family
end

local families = setmetatable({}, { __index = function(families, name)
  families[name] = make_family(name)
  return families[name]
end })

-- ---- making ----

--- The value for an object that is held once for it; `from` and `count` for a part.
function array.open(place, generation, from, count)
  local address, name, bytes, rows, cols, is_matrix = core.open_data(place, generation)
  data.received(name, bytes)
  local family = families[name]
  local made = family.open(place, generation, address, rows, cols, is_matrix)
  if not count or count < 0 then return shared.remember(made) end
  if not (from >= 0 and from + count <= rows * cols and from % 1 == 0 and count % 1 == 0) then
    error("a part of a shared array that is none", 0)
  end
  return family.view(made, from, count)
end

function array.make(what, name, bytes, rows, cols, is_matrix)
  return array.open(core.make_data("cannot make " .. what, name, bytes, rows, cols, is_matrix))
end

local function check_length(where, name, value, level)
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 or value > 2 ^ 53 then
    check.fail(where, ("%s must be a whole number from 0, got %s"):format(name,
      check.describe(value)), level + 1)
  end
end

--- A shared array of a C type: `n` zeros, or the elements of a table.
---@param ctype string|ffi.ctype*  a number type, or a struct that has a name
---@param n integer|any[]
---@return tidemill.Array
function array.new(ctype, n)
  local where = "tidemill.array"
  local name, bytes = data.type(where, ctype, 3)
  local given = type(n) == "table" and n
  if not given then check_length(where, "length", n, 3) end
  local made = array.make("an array", name, bytes, 1, given and #given or n, false)
  if given then
    local origin = made.origin
    for i = 1, #given do origin[i] = given[i] end
  end
  return made
end

--- A shared matrix of a C type, of zeros, one row after the other.
---@param ctype string|ffi.ctype*
---@param rows integer
---@param cols integer
---@return tidemill.Matrix
function array.matrix(ctype, rows, cols)
  local where = "tidemill.matrix"
  local name, bytes = data.type(where, ctype, 3)
  check_length(where, "rows", rows, 3)
  check_length(where, "cols", cols, 3)
  return array.make("a matrix", name, bytes, rows, cols, true)
end

--- Is this an array or a matrix? Then also: its rows, if it has.
---@param value any
---@return boolean is, integer? rows
function array.is(value)
  if type(value) ~= "cdata" or not shared.encode(value) then return false end
  local ok, rows = pcall(function() return value.origin and value.rows end)
  return ok, ok and tonumber(rows) or nil
end

return array
