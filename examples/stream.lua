-- Results while the work goes on: as they come, in order, and from an input without an end.

local tidemill = require "tidemill"

--- Of `count` numbers from `first` on, the one with the longest way to 1 by Collatz's rule.
local function longest_chain(first, count)
  local best, longest = first, 0
  for start = first, first + count - 1 do
    local n, length = start, 1
    while n ~= 1 do
      n = n % 2 == 0 and n / 2 or 3 * n + 1
      length = length + 1
    end
    if length > longest then best, longest = start, length end
  end
  return { start = best, length = longest }
end

local function is_perfect(n)
  local sum = 1
  for d = 2, math.sqrt(n) do
    if n % d == 0 then sum = sum + d + (d * d < n and n / d or 0) end
  end
  return n > 1 and sum == n
end

tidemill.with(function(pool)
  -- In order of completion: whatever is done counts as progress.
  local block, limit = 50000, 1e6
  local blocks = {}
  for first = 1, limit, block do blocks[#blocks + 1] = { first, block } end
  local best, done = { length = 0 }, 0
  for _, chain in pool:istarmap_unordered(longest_chain, blocks, { chunksize = 1 }) do
    if chain.length > best.length then best = chain end
    done = done + 1
    if done % 5 == 0 then print(("%3d %% measured"):format(done / #blocks * 100)) end
  end
  print(("the longest below a million starts at %d: %d numbers"):format(best.start, best.length))

  -- In input order, from a generator that never ends. It is asked only for a little more than what
  -- the loop takes, and leaving the loop ends the work.
  local asked, taken = 0, 0
  local function numbers()
    asked = asked + 1
    return asked
  end
  local found = {}
  for n, perfect in pool:imap(is_perfect, numbers, { chunksize = 50, buffer = 1000 }) do
    taken = n
    if perfect then found[#found + 1] = n end
    if #found == 4 then break end
  end
  print("perfect: " .. table.concat(found, ", "))
  print(("the generator was asked for %s than it took"):format(
    asked - taken <= 1000 and "no more than 1000 numbers more" or "far more numbers"))
end)
