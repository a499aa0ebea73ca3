--- A module that a script can require, and that in a worker does what its BOMB says instead.

local worker = require "tidemill".worker()
if worker then rawget(_G, "BOMB")() end

return { f = function() return "harmless" end }
