-- Nested loops: a parameter sweep with a starmap in each round of the outer loop. The function is a
-- new closure every time, and its upvalues go along.

local tidemill = require "tidemill"

local GRAVITY = 9.81

--- A function that throws a ball and returns how far it flies, in air of some drag.
local function thrower(drag, step)
  return function(speed, degrees)
    local angle = math.rad(degrees)
    local vx, vy = speed * math.cos(angle), speed * math.sin(angle)
    local x, y = 0, 0
    repeat
      local v = math.sqrt(vx * vx + vy * vy)
      vx, vy = vx - drag * v * vx * step, vy - (GRAVITY + drag * v * vy) * step
      x, y = x + vx * step, y + vy * step
    until y < 0
    return x
  end
end

local speeds, throws = { 10, 20, 30 }, {}
for _, speed in ipairs(speeds) do
  for degrees = 20, 60 do throws[#throws + 1] = { speed, degrees } end
end

--- The throw of each speed that goes farthest.
local function farthest(distances)
  local best = {}
  for i, throw in ipairs(throws) do
    local known = best[throw[1]]
    if not known or distances[i] > known.distance then
      best[throw[1]] = { degrees = throw[2], distance = distances[i] }
    end
  end
  return best
end

tidemill.with(function(pool)
  for _, drag in ipairs { 0, 0.005, 0.01, 0.02 } do
    local throw = thrower(drag, 0.001)
    local distances = pool:starmap(throw, throws)
    for i, item in ipairs(throws) do assert(distances[i] == throw(unpack(item))) end

    local best, found = farthest(distances), {}
    for i, speed in ipairs(speeds) do
      local distance, degrees = best[speed].distance, best[speed].degrees
      found[i] = ("%d m/s %.1f m at %d degrees"):format(speed, distance, degrees)
      -- Without air the book has the answer.
      assert(drag > 0 or math.abs(distance - speed ^ 2 / GRAVITY) < 0.1)
    end
    print(("drag %.3f: %s"):format(drag, table.concat(found, ", ")))
  end
  print "a plain loop finds the same"
end)
