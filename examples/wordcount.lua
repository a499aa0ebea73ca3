-- Count the words of a large text: the script reads lines, workers take them apart with LPeg.
-- usage: tidemill wordcount.lua [FILE]

local lpeg = require "lpeg"
local tidemill = require "tidemill"

-- A pattern cannot travel, so each worker makes its own: it finds this upvalue nil the first time,
-- and what it assigns stays with the function.
local words

--- How often each word is in the text, in lower case.
local function count_words(text)
  if not words then
    local letter = lpeg.R("az", "AZ")
    words = lpeg.Ct(((1 - letter) ^ 0 * lpeg.C(letter ^ 1)) ^ 0)
  end
  local counts = {}
  for _, word in ipairs(words:match(text)) do
    word = word:lower()
    counts[word] = (counts[word] or 0) + 1
  end
  return counts
end

--- An iterator of the file's lines, `size` of them at a time.
local function batches(path, size)
  local file = assert(io.open(path))
  return function()
    local batch = {}
    for line in file:lines() do
      batch[#batch + 1] = line
      if #batch == size then break end
    end
    if #batch > 0 then return table.concat(batch, "\n") end
    file:close()
  end
end

--- Write a text of which the counts are known.
local function write_text(path, lines)
  local vocabulary = { "tide", "Tide", "mill", "wheel", "water", "the", "The", "a", "turns" }
  local file, counts, state = assert(io.open(path, "w")), {}, 1
  for i = 1, lines do
    local line = {}
    for k = 1, 12 do
      state = state * 16807 % 2147483647
      line[k] = vocabulary[state % #vocabulary + 1]
      counts[line[k]:lower()] = (counts[line[k]:lower()] or 0) + 1
    end
    file:write(i, ". ", table.concat(line, i % 2 == 0 and ", " or " "), ".\n")
  end
  file:close()
  return counts
end

local path, known = arg[1], nil
if not path then
  path = os.tmpname()
  known = write_text(path, 50000)
end

local total, counts = 0, {}
tidemill.with(function(pool)
  -- Any order does, the counts are only added up.
  for _, partial in pool:imap_unordered(count_words, batches(path, 500)) do
    for word, count in pairs(partial) do
      counts[word] = (counts[word] or 0) + count
      total = total + count
    end
  end
end)

local ranking = {}
for word in pairs(counts) do ranking[#ranking + 1] = word end
table.sort(ranking, function(a, b)
  if counts[a] ~= counts[b] then return counts[a] > counts[b] end
  return a < b
end)
print(("%d words, %d different"):format(total, #ranking))
for i = 1, math.min(5, #ranking) do print(("%8d %s"):format(counts[ranking[i]], ranking[i])) end

if known then
  os.remove(path)
  for word, count in pairs(known) do assert(counts[word] == count, word) end
  for word in pairs(counts) do assert(known[word], word) end
  print "as many as were written"
end
