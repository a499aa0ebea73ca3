-- Picture filters: each runs over each band of rows as a task of its own.
-- usage: tidemill images.lua [DIRECTORY [PICTURE.ppm]]

local ffi = require "ffi"
local tidemill = require "tidemill"

ffi.cdef "int mkdir(const char *path, unsigned mode);"

-- ---- pictures: red, green and blue of each pixel, row by row ----

local function new_picture(width, height, text)
  local bytes = ffi.new("uint8_t[?]", width * height * 3)
  if text then ffi.copy(bytes, text, width * height * 3) end
  return { width = width, height = height, bytes = bytes }
end

local function read_ppm(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a"):gsub("^(P6%s+)#[^\n]*\n", "%1") -- painting programs sign here
  file:close()
  local width, height, from = text:match "^P6%s+(%d+)%s+(%d+)%s+255%s()"
  assert(width, path .. " is not a P6 picture with 255 shades")
  assert(#text >= from - 1 + width * height * 3, path .. " is cut off")
  return new_picture(tonumber(width), tonumber(height), text:sub(from))
end

local function write_ppm(path, width, height, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(("P6\n%d %d\n255\n"):format(width, height), bytes)
  file:close()
end

--- The colours at `x` and `y`, both from 0 to 1: the sun over the sea.
local function scene(x, y)
  if (x - 0.7) ^ 2 + (y * 2 / 3 - 0.2) ^ 2 < 0.008 then return 255, 230, 90 end
  if y < 0.6 then return 90 + 150 * y, 140 + 90 * y, 215 end
  local wave = 25 * math.sin(60 * x * (1.6 - y) + 8 * math.sin(40 * y))
  return 30 + wave, 85 + wave, 140
end

local function paint(width, height)
  local picture = new_picture(width, height)
  for i = 0, width * height - 1 do
    local r, g, b = scene(i % width / width, math.floor(i / width) / height)
    local at = picture.bytes + i * 3
    at[0], at[1], at[2] = r, g, b
  end
  return picture
end

-- ---- filters: the new red, green and blue of the pixel at x and y ----

local function pixel(picture, x, y)
  x = math.max(0, math.min(picture.width - 1, x)) -- beyond the edge it goes on like the edge
  y = math.max(0, math.min(picture.height - 1, y))
  local at = (y * picture.width + x) * 3
  return picture.bytes[at], picture.bytes[at + 1], picture.bytes[at + 2]
end

--- Adds up a pixel and its eight neighbours, each with its weight.
local function neighbours(weights, divisor)
  return function(picture, x, y)
    local red, green, blue = 0, 0, 0
    for i = 0, 8 do
      local r, g, b = pixel(picture, x + i % 3 - 1, y + math.floor(i / 3) - 1)
      local weight = weights[i + 1] / divisor
      red, green, blue = red + r * weight, green + g * weight, blue + b * weight
    end
    return red, green, blue
  end
end

local function brightness(picture, x, y)
  local r, g, b = pixel(picture, x, y)
  return 0.3 * r + 0.59 * g + 0.11 * b
end

local filters = {
  blur = neighbours({ 1, 2, 1, 2, 4, 2, 1, 2, 1 }, 16),
  sharpen = neighbours({ 0, -1, 0, -1, 5, -1, 0, -1, 0 }, 1),
  grayscale = function(picture, x, y)
    local gray = brightness(picture, x, y)
    return gray, gray, gray
  end,
  sepia = function(picture, x, y)
    local gray = brightness(picture, x, y)
    return 1.2 * gray + 15, gray + 5, 0.75 * gray
  end,
}

local function to_byte(value) return math.max(0, math.min(255, math.floor(value + 0.5))) end

--- The rows from `first` to `last` of the filtered picture, as bytes in a string.
local function filter_rows(picture, name, first, last)
  local filter = filters[name]
  local size = (last - first + 1) * picture.width * 3
  local out, at = ffi.new("uint8_t[?]", size), 0
  for y = first, last do
    for x = 0, picture.width - 1 do
      local r, g, b = filter(picture, x, y)
      out[at], out[at + 1], out[at + 2] = to_byte(r), to_byte(g), to_byte(b)
      at = at + 3
    end
  end
  return ffi.string(out, size)
end

-- ---- the job ----

local directory = arg[1]
if not directory then
  directory = os.tmpname()
  os.remove(directory)
end
ffi.C.mkdir(directory, tonumber("755", 8)) -- fine if it is there

local original = arg[2] and read_ppm(arg[2]) or paint(480, 320)
local width, height = original.width, original.height
local size = width * height * 3
write_ppm(directory .. "/original.ppm", width, height, ffi.string(original.bytes, size))

-- The picture goes along with the function, once to each worker; a task is a name and two numbers.
local names, tasks, rows = { "grayscale", "blur", "sharpen", "sepia" }, {}, 40
for _, name in ipairs(names) do
  for first = 0, height - 1, rows do
    tasks[#tasks + 1] = { name, first, math.min(first + rows, height) - 1 }
  end
end
local bands = tidemill.with(function(pool)
  return pool:starmap(function(...) return filter_rows(original, ...) end, tasks)
end)

local count = #tasks / #names
for i, name in ipairs(names) do
  local path = ("%s/%s.ppm"):format(directory, name)
  write_ppm(path, width, height, table.concat(bands, "", (i - 1) * count + 1, i * count))

  local plain = filter_rows(original, name, 0, height - 1) -- in one piece, by the script itself
  assert(ffi.string(read_ppm(path).bytes, size) == plain, name .. " has seams")
  print(("%s: %d x %d in %d bands, as in one piece: %s"):format(name, width, height, count, path))
end
