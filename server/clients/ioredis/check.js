// What ioredis does with the server, in one version of the protocol. The Go test starts the
// server, which is this program's alone, and starts it anew when this asks for it by a line.
"use strict";
const assert = require("node:assert/strict");
const { once } = require("node:events");
const { Redis } = require("ioredis");

const options = { host: "127.0.0.1", port: Number(process.env.PORT), password: process.env.PASSWORD, protocol: Number(process.env.PROTOCOL) };

async function commands(redis) {
  assert.equal(await redis.set("a", "1", "EX", 60), "OK");
  assert.equal(await redis.incr("a"), 2);
  assert.equal(await redis.get("none"), null);
  assert.deepEqual(await redis.mget("a", "none"), ["2", null]);
  assert.equal(await redis.set("a", "3", "NX"), null);
  assert.ok((await redis.ttl("a")) > 50);
  const bytes = Buffer.from([0, 13, 10, 255]);
  await redis.set("bytes", bytes);
  assert.deepEqual(await redis.getBuffer("bytes"), bytes);
  assert.equal(await redis.hset("h", { name: "Ann", age: 42 }), 2);
  assert.equal(await redis.hincrby("h", "age", 1), 43);
  assert.deepEqual(await redis.hgetall("h"), { name: "Ann", age: "43" });
  await assert.rejects(redis.incr("h"), /^ReplyError: WRONGTYPE/);
  await assert.rejects(redis.lpush("l", "v"), /unknown command/);
  assert.match(await redis.client("LIST"), / name=tester /);

  const results = await redis.pipeline().set("p", "1").incr("h").incr("p").exec();
  assert.deepEqual([results[0], results[2]], [[null, "OK"], [null, 2]]);
  assert.match(results[1][0].message, /^WRONGTYPE/);
  assert.deepEqual(await redis.multi().incr("p").get("p").exec(), [[null, 3], [null, "3"]]);
  await redis.watch("p");
  const other = redis.duplicate();
  await other.set("p", "10");
  assert.equal(await redis.multi().incr("p").exec(), null);

  const set = other.pipeline();
  for (let i = 0; i < 300; i++) set.set(`scan:${i}`, i);
  await set.exec();
  const found = new Set();
  for await (const keys of redis.scanStream({ match: "scan:*", count: 50 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 300);
  await other.quit();
}

async function channels(redis) {
  const listener = redis.duplicate();
  assert.equal(await listener.subscribe("news", "more"), 2);
  assert.equal(await listener.psubscribe("n*"), 3);
  const message = once(listener, "message");
  const pattern = once(listener, "pmessage");
  assert.equal(await redis.publish("news", "hello"), 2);
  assert.deepEqual(await message, ["news", "hello"]);
  assert.deepEqual(await pattern, ["n*", "news", "hello"]);
  await listener.unsubscribe("news", "more"); // without names it waits until the patterns are gone too
  await listener.punsubscribe("n*");
  assert.equal(await listener.ping(), "PONG");
  await listener.quit();
}

async function together(redis) {
  const auto = redis.duplicate({ enableAutoPipelining: true });
  const sums = await Promise.all(Array.from({ length: 200 }, () => auto.incr("auto")));
  assert.deepEqual(sums, Array.from({ length: 200 }, (_, i) => i + 1));
  await auto.quit();
}

// A server that goes and comes back: what was asked meanwhile is answered then, and
// subscriptions are made again.
async function restart(redis) {
  const listener = redis.duplicate();
  await listener.subscribe("news");
  await redis.set("kept", "yes");
  const gone = once(redis, "close");
  process.stdout.write("restart\n");
  await gone;
  assert.equal(await redis.get("kept"), "yes");
  const message = once(listener, "message");
  while ((await redis.publish("news", "back")) === 0);
  assert.deepEqual(await message, ["news", "back"]);
  await listener.quit();
}

(async () => {
  // A server that is gone is looked for again every 50 ms.
  const redis = new Redis({ ...options, connectionName: "tester", retryStrategy: () => 50, maxRetriesPerRequest: null });
  redis.on("error", () => {}); // that it is gone, which is what is tried
  await commands(redis);
  await channels(redis);
  await together(redis);
  await restart(redis);
  await redis.quit();
  const stranger = new Redis({ ...options, password: "wrong", retryStrategy: () => null });
  stranger.on("error", () => {});
  await assert.rejects(stranger.get("a"));
  stranger.disconnect();
  process.stdout.write("done\n");
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
