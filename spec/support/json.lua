--- Reads JSON, strictly.

local lpeg = require "lpeg"

local P, R, S, V = lpeg.P, lpeg.R, lpeg.S, lpeg.V
local C, Cc, Cf, Cg, Cs, Ct = lpeg.C, lpeg.Cc, lpeg.Cf, lpeg.Cg, lpeg.Cs, lpeg.Ct

local blank = S " \t\r\n" ^ 0
local function token(text) return P(text) * blank end

local digits = R "09" ^ 1
local number = C(P "-" ^ -1 * (P "0" + R "19" * R "09" ^ 0) * ("." * digits) ^ -1
  * (S "eE" * S "+-" ^ -1 * digits) ^ -1) / tonumber * blank
local escape = P "\\" / "" * (S '"\\/' + P "n" / "\n" + P "t" / "\t")
local text = P '"' * Cs((escape + (1 - S '"\\' - R "\0\31")) ^ 0) * token '"'

local function set(object, key, value)
  object[key] = value
  return object
end

local json_text = P {
  blank * V "value" * -1,
  value = text + number + V "object" + V "array" + token "true" * Cc(true)
    + token "false" * Cc(false),
  array = token "[" * Ct((V "value" * (token "," * V "value") ^ 0) ^ -1) * token "]",
  pair = Cg(text * token ":" * V "value"),
  object = token "{" * Cf(Ct "" * (V "pair" * (token "," * V "pair") ^ 0) ^ -1, set) * token "}",
}

local json = {}

--- The value that a text stands for; nil if it is not JSON.
function json.decode(s)
  return json_text:match(s)
end

return json
