--- A class in a module that workers can require: its instances keep their class on the way.

local Point = {}
Point.__index = Point

local methods = { __index = function(_, key) return "dynamic " .. key end }

local point = { Point = Point, dynamic = methods }

function point.new(x, y) return setmetatable({ x = x, y = y }, Point) end

function point.is_point(value) return getmetatable(value) == Point end

function Point:length() return math.sqrt(self.x * self.x + self.y * self.y) end

function Point.__add(a, b) return point.new(a.x + b.x, a.y + b.y) end

return point
