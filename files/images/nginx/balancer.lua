--- Balancing by readiness. One worker asks Docker's DNS which replicas a service has and each replica
-- whether it is ready; every worker picks the least busy of the ready ones. Scaling, a stop or a hung
-- replica needs no reload, and a reload starts from the list that is already known.

local balancer = require "ngx.balancer"
local cjson = require "cjson.safe"
local resolver = require "nginx.dns.resolver"

local DOCKER_DNS = "127.0.0.11"
local INTERVAL_S = 0.5
local PROBE_TIMEOUT_MS = 800
-- One slow answer is load, two in a row are a replica that hangs.
local TIMEOUTS_UNTIL_OUT = 2
local EXTRA_TRIES = 2
-- The counters of addresses that are long gone do not pile up.
local SERVED_TTL_S = 86400

local shared = ngx.shared.balancer
local _M = {}

local services = {}
local config_sha1

local in_flight = {}
local ready_lists = {}
local cursor = 0

--- Reads one HTTP status code from a replica.
-- @return status code, or nil and "timeout" or another error
local function ask(address, service)
  local socket = ngx.socket.tcp()
  socket:settimeouts(PROBE_TIMEOUT_MS, PROBE_TIMEOUT_MS, PROBE_TIMEOUT_MS)
  local ok, err = socket:connect(address, service.port)
  if not ok then
    return nil, err
  end
  local line
  ok, err = socket:send("GET " .. service.ready_path .. " HTTP/1.0\r\nHost: balancer\r\n\r\n")
  if ok then
    line, err = socket:receive("*l")
  end
  socket:close()
  return line and tonumber(line:match("^HTTP/%d%.%d (%d%d%d)")), err
end

local function probe(replica, address, service)
  local status, err = ask(address, service)
  replica.timeouts = err == "timeout" and replica.timeouts + 1 or 0
  replica.slow = err == "timeout"
  replica.why = status and ("answered " .. status) or err
  if status == 200 then
    replica.ready = true
  elseif not replica.slow or replica.timeouts >= TIMEOUTS_UNTIL_OUT then
    replica.ready = false
  end
end

--- Brings service.replicas in line with the addresses that Docker's DNS gives for the service's name.
-- While DNS does not answer (the engine restarts) the known replicas stay.
local function resolve(service)
  local dns = resolver:new { nameservers = { DOCKER_DNS }, retrans = 2, timeout = 500 }
  local answers = dns and dns:query(service.name, { qtype = resolver.TYPE_A })
  if not answers or (answers.errcode and answers.errcode ~= 3) then
    return
  end
  local known = {}
  for _, answer in ipairs(answers) do
    if answer.address then
      known[answer.address] = service.replicas[answer.address] or { ready = false, timeouts = 0 }
    end
  end
  service.replicas = known
end

local function addresses_where(replicas, wanted)
  local addresses = {}
  for address, replica in pairs(replicas) do
    if wanted(replica) then
      addresses[#addresses + 1] = address
    end
  end
  table.sort(addresses)
  return addresses
end

local function publish(service)
  local ready = addresses_where(service.replicas, function(replica) return replica.ready end)
  if #ready == 0 then
    -- All too busy to answer in time: a slow answer is better than none.
    ready = addresses_where(service.replicas, function(replica) return replica.slow end)
  end
  shared:set("ready:" .. service.name, table.concat(ready, " "))
  shared:set("replicas:" .. service.name, cjson.encode(service.replicas))
end

local function refresh(service)
  resolve(service)
  local probes = {}
  for address, replica in pairs(service.replicas) do
    probes[#probes + 1] = ngx.thread.spawn(probe, replica, address, service)
  end
  for _, thread in ipairs(probes) do
    ngx.thread.wait(thread)
  end
  publish(service)
end

local function watch(premature)
  if premature then
    return
  end
  for _, service in pairs(services) do
    local ok, err = pcall(refresh, service)
    if not ok then
      ngx.log(ngx.ERR, "balancer: ", service.name, ": ", err)
    end
  end
  ngx.timer.at(INTERVAL_S, watch)
end

--- Called once per start or reload, before the workers exist.
-- @param path the configuration file that is being loaded; its SHA-1 tells later which one runs
-- @param list of {name, port, ready_path}
function _M.init(path, list)
  local file = assert(io.open(path, "rb"))
  config_sha1 = ngx.sha1_bin(file:read("*a")):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  file:close()
  for _, service in ipairs(list) do
    service.replicas = {}
    services[service.name] = service
  end
end

function _M.init_worker()
  if ngx.worker.id() ~= 0 then
    return
  end
  for name, service in pairs(services) do
    service.replicas = cjson.decode(shared:get("replicas:" .. name) or "{}") or {}
  end
  ngx.timer.at(0, watch)
end

local function ready_list(name)
  local joined = shared:get("ready:" .. name) or ""
  local list = ready_lists[name]
  if not list or list.joined ~= joined then
    list = { joined = joined }
    for address in joined:gmatch("%S+") do
      list[#list + 1] = address
    end
    ready_lists[name] = list
  end
  return list
end

--- The least busy replica that this request has not tried; equally busy ones take turns.
local function least_busy(list, tried)
  local best
  cursor = cursor + 1
  for i = 1, #list do
    local address = list[(cursor + i) % #list + 1]
    if not tried[address] and (not best or (in_flight[address] or 0) < (in_flight[best] or 0)) then
      best = address
    end
  end
  return best
end

--- balancer_by_lua: chooses the replica for this try of this request.
function _M.pick(name)
  local list = ready_list(name)
  local tried = ngx.ctx.tried
  if not tried then
    tried = {}
    ngx.ctx.tried = tried
    balancer.set_more_tries(math.max(0, math.min(EXTRA_TRIES, #list - 1)))
  end
  local address = least_busy(list, tried)
  if not address then
    return ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
  end
  tried[address] = true
  in_flight[address] = (in_flight[address] or 0) + 1
  assert(balancer.set_current_peer(address, services[name].port))
end

--- log_by_lua: the request is over. upstream_addr names every replica tried and, unlike ngx.ctx,
-- survives an internal redirect to an error page.
function _M.done()
  for address in (ngx.var.upstream_addr or ""):gmatch("([%d%.]+):%d+") do
    local requests = (in_flight[address] or 0) - 1
    in_flight[address] = requests > 0 and requests or nil
    shared:incr("served:" .. address, 1, 0, SERVED_TTL_S)
  end
end

--- The running configuration and what is known of every replica, as JSON; 503 while a service has no ready replica.
function _M.status()
  local report = { config_sha1 = config_sha1, services = {} }
  for name in pairs(services) do
    local ready = ready_list(name)
    local replicas = cjson.decode(shared:get("replicas:" .. name) or "{}")
    for address, replica in pairs(replicas) do
      replica.served = shared:get("served:" .. address) or 0
    end
    report.services[name] = { ready = #ready, replicas = replicas }
    if #ready == 0 then
      ngx.status = ngx.HTTP_SERVICE_UNAVAILABLE
    end
  end
  ngx.say(cjson.encode(report))
end

return _M
