--- Write the corpus of the fuzz target anew: a message for each sample.
---
---   LUA_CPATH='build/release/?.so;;' luajit spec/fuzz/make_corpus.lua
---
--- What is not named by a sample stays: inputs that once crashed, for example.

local tidemill = require "tidemill"
local core = require "tidemill.core"

local DIRECTORY = "spec/fuzz/"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

-- The fuzz target gives the chunk the same name: it is part of the bytecode.
local chunk = assert(loadstring(read(DIRECTORY .. "samples.lua"), "@samples.lua"))

for _, sample in ipairs(chunk(tidemill.register)) do
  local bytes = tidemill.encode(unpack(sample, 1, sample.n))
  write(DIRECTORY .. "corpus/" .. sample.name, bytes:sub(2)) -- the first is the version
end

-- The first objects of a process, as in decode_fuzz.c: so the handles are the same.
local array, matrix = tidemill.array("double", 16), tidemill.matrix("int", 4, 5)
local value = tidemill.value "int64_t"
write(DIRECTORY .. "corpus/shared", (core.message(array, { [matrix] = value }, array:slice(2, 5),
  matrix:row(3), array)))
