--- Many numbers, or structs, that every process sees: `tidemill.array("double", 1e6)`, and the same
--- in rows: `tidemill.matrix`.
---
--- An array is an FFI struct with a pointer and a count. The count is an unsigned integer, and a
--- place that is compared with it becomes one: so `a[i]` compiles to a load and one comparison,
--- which catches indices below 1 too. Parts of one (`slice`, `row`) are arrays as well, and hold
--- the whole.

local check = require "tidemill.check"
local core = require "tidemill.core"
local data = require "tidemill.shared.data"
local ffi = require "ffi"
local shared = require "tidemill.shared"
local strict = require "tidemill.shared.strict"

local floor, type = math.floor, type

local array = {}

--- Numbers that are stored are converted as in C.
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
  error(("index %s is out of bounds: the array has %d elements"):format(tostring(key),
    tonumber(self.count)), level + 1)
end

local function refuse_place(self, method, row, col, level)
  check.type(method, "row", row, "number", level + 1)
  check.type(method, "col", col, "number", level + 1)
  error(("row %s, column %s is out of bounds: the matrix has %d rows and %d columns"):format(
    tostring(row), tostring(col), self.rows, self.cols), level + 1)
end

local function check_source(self, source)
  local count = type(source) == "table" and #source or tonumber(source.count)
  if count ~= self.count then
    check.fail("array:copy", ("the source has %d elements, the array %d"):format(count,
      tonumber(self.count)), 3)
  end
end

-- ---- types ----

local function describe(self)
  return shared.kinds.array, self.from, self.whole and -1 or tonumber(self.count)
end

-- Text and not a function: code is compiled for each type apart. As a signed integer a place has
-- no check for overflow, and what is beyond 2^63 becomes none that an array has. Of floor() nothing
-- is left in machine code where the index is known to be a whole number.
local access = [[
local floor, type, methods, refuse, put, element = ...
local function index(self, key)
  if type(key) == "number" then
    local place = key - 1LL
    if place < self.count and floor(key) == key then return self.at[place] end
    refuse(self, key, 2)
  end
  local method = methods[key]
  if not method then refuse(self, key, 2) end
  return method
end
local function newindex(self, key, value)
  if type(key) ~= "number" then refuse(self, key, 2) end
  local place = key - 1LL
  if place < self.count and floor(key) == key then
    put(self.at, place, value, element, 2)
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

-- As the items of a pool's method, an array is its elements and a matrix its rows.
local function itself(self) return self end

local function rows_of(self)
  local rows = {}
  for row = 1, self.rows do rows[row] = self:row(row) end
  return rows
end

local array_kind = {
  name = "array", fields = "", list = itself, hint = "elements are a[1] to a[#a]",
  size = function(self) return ("%d x"):format(tonumber(self.count)) end,
}

local matrix_kind = {
  name = "matrix", fields = "const int32_t rows, cols; const uint64_t height, width;",
  list = rows_of, hint = "elements are get(row, col) and set(row, col, value)",
  size = function(self) return ("%d x %d"):format(self.rows, self.cols) end,
}

--- A struct with the methods, for elements of a type.
local function make_type(kind, name, methods, put)
  local struct = ffi.typeof(([[struct {
    %s *const at; const uint64_t count; const uint32_t place, generation; const double from;
    const bool whole; %s
  }]]):format(name, kind.fields))
  shared.register(struct, describe, kind.list)
  local refuse_field
  local function refuse(self, key, level)
    if type(key) ~= "number" then refuse_field(key, level + 1) end
    refuse_index(self, key, level + 1)
  end
  local index, newindex = loadstring(access, "=tidemill.shared.array")(floor, type, methods,
    refuse, put, kind.name .. "[%d]")
  local metatable = {
    __index = index,
    __newindex = newindex,
    __len = function(self) return tonumber(self.count) end,
    __eq = equal,
    __gc = function(self) shared.drop(self.place, self.generation) end,
    __tostring = function(self)
      return ("tidemill.%s: %s %s"):format(kind.name, kind.size(self), name)
    end,
  }
  refuse_field = strict.complete(kind.name, methods, metatable, kind.hint)
  return ffi.metatype(struct, metatable)
end

-- ---- methods ----

local function array_methods(family)
  local methods = { lock = data.lock, unlock = data.unlock, with = data.with }
  local put = family.put

  function methods:data() return self.at end

  function methods:slice(first, last)
    first, last = first or 1, last or tonumber(self.count)
    if type(first) ~= "number" or type(last) ~= "number" or first < 1 or last > self.count
      or last < first - 1 or first % 1 ~= 0 or last % 1 ~= 0 then
      check.fail("array:slice", ("%s to %s is no part of 1 to %d"):format(tostring(first),
        tostring(last), tonumber(self.count)), 2)
    end
    return family.view(self, first - 1, last - first + 1)
  end

  function methods:fill(value)
    local at = self.at
    for i = 0, tonumber(self.count) - 1 do put(at, i, value, "array:fill", 2) end
    return self
  end

  function methods:totable()
    local at, copy = self.at, {}
    for i = 1, tonumber(self.count) do copy[i] = family.plain(at[i - 1]) end
    return copy
  end

  function methods:copy(source)
    if source == nil then
      local made = family.new_like(self)
      ffi.copy(made.at, self.at, tonumber(self.count) * family.bytes)
      return made
    end
    if type(source) ~= "table" and not family.is(source) then
      check.fail("array:copy", "the source must be a table or an array of the same type", 2)
    end
    check_source(self, source)
    if type(source) == "table" then
      local at = self.at
      for i = 1, #source do put(at, i - 1, source[i], "array:copy: element %d", 2) end
    else -- they may overlap
      family.move(self.at, source.at, tonumber(self.count) * family.bytes)
    end
    return self
  end

  return methods
end

local function matrix_methods(family)
  local methods = array_methods(family)
  local put = family.put

  function methods:get(row, col)
    if type(row) == "number" and type(col) == "number" then
      local r, c, width = row - 1LL, col - 1LL, self.width
      if r < self.height and floor(row) == row and c < width and floor(col) == col then
        return self.at[r * width + c]
      end
    end
    refuse_place(self, "matrix:get", row, col, 2)
  end

  function methods:set(row, col, value)
    if type(row) == "number" and type(col) == "number" then
      local r, c, width = row - 1LL, col - 1LL, self.width
      if r < self.height and floor(row) == row and c < width and floor(col) == col then
        put(self.at, r * width + c, value, "matrix:set", 2)
        return
      end
    end
    refuse_place(self, "matrix:set", row, col, 2)
  end

  function methods:row(row)
    if type(row) ~= "number" or row < 1 or row > self.rows or floor(row) ~= row then
      check.fail("matrix:row", ("%s is out of bounds: the matrix has %d rows"):format(
        tostring(row), self.rows), 2)
    end
    return family.view(self, (row - 1) * self.cols, self.cols)
  end

  return methods
end

pcall(ffi.cdef, "void *memmove(void *to, const void *from, size_t size);")

--- All about the arrays and matrices of an element type.
local function make_family(name)
  local element = ffi.typeof(name)
  local family = { bytes = ffi.sizeof(element), move = ffi.C.memmove, put = data.putter(name) }
  local is_struct = data.is_struct(name)
  local arrays, matrices = array_methods(family), matrix_methods(family)
  local pointer = ffi.typeof(name .. " *")
  local array_type = make_type(array_kind, name, arrays, family.put)
  local matrix_type = make_type(matrix_kind, name, matrices, family.put)

  function family.plain(value) return is_struct and element(value) or value end

  function family.is(value)
    return ffi.istype(array_type, value) or ffi.istype(matrix_type, value)
  end

  --- A value for an object whose hold it gets.
  function family.open(place, generation, address, rows, cols, is_matrix)
    local at = ffi.cast(pointer, address)
    if is_matrix then
      return matrix_type(at, rows * cols, place, generation, 0, true, rows, cols, rows, cols)
    end
    return array_type(at, rows * cols, place, generation, 0, true)
  end

  --- A part of an array that is held.
  function family.view(whole, from, count)
    core.hold(whole.place, whole.generation)
    return array_type(whole.at + from, count, whole.place, whole.generation, whole.from + from,
      false)
  end

  function family.new_like(whole)
    local is_matrix = ffi.istype(matrix_type, whole)
    return array.make("a copy", name, family.bytes, is_matrix and whole.rows or 1,
      is_matrix and whole.cols or tonumber(whole.count), is_matrix)
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
  local is_part = count and count >= 0
  if is_part and not (from >= 0 and from + count <= rows * cols and from % 1 == 0
    and count % 1 == 0) then
    error("a part of a shared array that is none", 0)
  end
  -- From here on the hold is the value's: nothing may raise.
  local family = families[name]
  local made = family.open(place, generation, address, rows, cols, is_matrix)
  return is_part and family.view(made, from, count) or shared.remember(made)
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
    local at, put = made.at, families[name].put
    for i = 1, #given do put(at, i - 1, given[i], where .. ": element %d", 3) end
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
  check.count(where, "rows", rows, 0, 3)
  check.count(where, "cols", cols, 0, 3)
  return array.make("a matrix", name, bytes, rows, cols, true)
end

return array
