// The frame in which an expression runs: `ask(kind, key)` reaches the host, all other names are made from it.
// Every function that is needed later is taken aside first, because an expression may replace what it likes.
(function () {
  "use strict";
  const { parse, stringify } = JSON;
  const { defineProperty, create } = Object;
  const { Error, InternalError, Promise, Proxy, String, Boolean, TypeError } = globalThis;
  const evaluate = globalThis.eval;
  const then = Promise.prototype.then;
  const apply = Reflect.apply;
  const resolve = (value) => new Promise((done) => done(value));
  const ask = globalThis.ask;
  delete globalThis.ask;

  let state = "pending"; // then "value", "error" or "memory"
  let text = "";

  function answered(kind, key) {
    const answer = ask(kind, stringify(key));
    if (answer === "") return undefined;
    if (answer[0] === "=") return parse(answer.slice(1));
    throw new Error(parse(answer.slice(1)));
  }

  function global(name, value) {
    defineProperty(globalThis, name, { __proto__: null, value, writable: true, configurable: true, enumerable: true });
  }

  function lazily(name, get) {
    defineProperty(globalThis, name, {
      __proto__: null,
      configurable: true,
      enumerable: true,
      get() {
        const value = get();
        global(name, value);
        return value;
      },
      set(value) {
        global(name, value);
      },
    });
  }

  function looked_up(kind) {
    const seen = create(null);
    const get = (_, key) => {
      if (typeof key !== "string") return undefined;
      if (!(key in seen)) seen[key] = answered(kind, key);
      return seen[key];
    };
    const refuse = () => {
      throw new TypeError(kind + " can't be listed or changed: name what you need");
    };
    return new Proxy(create(null), {
      __proto__: null,
      get,
      has: (_, key) => get(_, key) !== undefined,
      getOwnPropertyDescriptor: (_, key) => {
        const value = get(_, key);
        return value === undefined ? undefined : { value, writable: true, configurable: true, enumerable: true };
      },
      ownKeys: refuse,
      set: refuse,
      defineProperty: refuse,
      deleteProperty: refuse,
    });
  }

  function end(how, what) {
    state = how;
    text = what;
  }

  function fail(error) {
    try {
      if (error instanceof InternalError && error.message === "out of memory") return end("memory", "");
      // Without memory for an error the engine throws null.
      if (error === null) return end("error", stringify("the expression threw null, or ran out of memory"));
      if (error instanceof Error) return end("error", stringify(String(error.name) + ": " + String(error.message)));
      end("error", stringify("the expression threw " + (stringify(error) ?? String(error))));
    } catch {
      end("error", stringify("the expression threw something that can't be shown"));
    }
  }

  function succeed(value, as_truth) {
    try {
      const json = stringify(as_truth ? Boolean(value) : value);
      if (json !== undefined) return end("value", json);
      if (value === undefined) return end("value", "null");
      end("error", stringify("TypeError: a " + typeof value + " can't be written as JSON"));
    } catch (error) {
      fail(error);
    }
  }

  const parts = {
    __proto__: null,
    know: (name, json) => lazily(name, () => parse(json)),
    know_large: (name) => lazily(name, () => answered("known", name)),
    object: (name) => global(name, looked_up(name)),
    callable: (name) => global(name, async (key) => answered(name, String(key))),
    run(code, called, as_truth) {
      try {
        const value = called ? evaluate(code)() : evaluate(code);
        apply(then, resolve(value), [(value) => succeed(value, as_truth), fail]);
      } catch (error) {
        fail(error);
      }
    },
    state: () => state,
    text: () => text,
  };
  return (part, ...given) => parts[part](...given);
})();
