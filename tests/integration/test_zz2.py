# scratch: odd uses, to find faults
from __future__ import annotations
import concurrent.futures as cf, itertools, os, random, sys, threading, time
import cloudpickle, pytest, dask
from dask import delayed
import graphvine as vine


@pytest.fixture(autouse=True, scope="module")
def _by_value():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def m():
    with vine.Manager(local_workers=2) as made:
        yield made


def one(t, tag=None):
    t.set_cores(1)
    t.set_tag(str(tag))
    return t


def everything(m):
    while not m.empty():
        t = m.wait(100)
        assert t is not None
        yield t


def ok_after(m):
    m.submit(one(vine.PythonTask(len, "abc"), "after"))
    t = m.wait_for_tag("after", 60)
    assert t.output == 3


def nap(s):
    time.sleep(s)
    return s


def echo(x):
    return x


def add(x, y):
    return x + y


def boom(x=0):
    raise ValueError(x)


# ---- cancels and waits
def test_cancel_every_moment(m):
    for i in range(60):
        t = one(vine.PythonTask(nap, 0.01))
        m.submit(t)
        time.sleep(random.random() * 0.03)
        n = m.cancel_by_task_id(t.id)
        got = m.wait(60)
        assert got is t
        assert t.result in ("cancelled", "success"), t.result
        if n == 0:
            assert t.result == "success"
    assert m.empty()
    ok_after(m)


def test_cancel_all_many(m):
    for i in range(2000):
        m.submit(one(vine.PythonTask(nap, 1), i))
    n = m.cancel_all()
    assert n == 2000, n
    rs = [t.result for t in everything(m)]
    assert rs.count("cancelled") == 2000, {r: rs.count(r) for r in rs}
    ok_after(m)


def test_cancel_twice(m):
    t = one(vine.PythonTask(nap, 100))
    m.submit(t)
    assert m.cancel_by_task_id(t.id) == 1
    m.cancel_by_task_id(t.id)
    assert m.wait(60) is t
    assert m.cancel_by_task_id(t.id) == 0


def test_cancel_calls(m):
    m.install_library(m.create_library_from_functions("l", nap))
    ts = [one(vine.FunctionCall("l", "nap", 100)) for _ in range(10)]
    for t in ts:
        m.submit(t)
    time.sleep(0.3)
    assert m.cancel_all() == 10
    assert [t.result for t in everything(m)] == ["cancelled"] * 10
    m.submit(one(vine.FunctionCall("l", "nap", 0)))
    assert m.wait(60).output == 0


def test_cancel_by_tag_loop(m):
    for i in range(5):
        m.submit(one(vine.PythonTask(nap, 100), "x"))
    n = 0
    while m.cancel_by_task_tag("x") > 0:
        n += 1
        assert n < 100, n
        if n >= 5:
            break
    got = [t.result for t in everything(m)]
    print(got)
    assert got == ["cancelled"] * 5


def test_wait_threads(m):
    got = []
    lock = threading.Lock()
    for i in range(400):
        m.submit(one(vine.PythonTask(echo, i), i))

    def w():
        while not m.empty():
            t = m.wait(5)
            if t:
                with lock:
                    got.append(t.output)

    ts = [threading.Thread(target=w) for _ in range(8)]
    [t.start() for t in ts]
    [t.join(60) for t in ts]
    assert sorted(got) == list(range(400))


def test_submit_threads(m):
    def s(k):
        for i in range(100):
            m.submit(one(vine.PythonTask(echo, (k, i))))

    ts = [threading.Thread(target=s, args=(k,)) for k in range(8)]
    [t.start() for t in ts]
    [t.join(60) for t in ts]
    assert len({t.output for t in everything(m)}) == 800


def test_wait_negative_and_words(m):
    assert m.wait(0) is None
    assert m.wait("wait_forever") is None
    assert m.wait(-1) is None
    assert m.wait(None) is None
    with pytest.raises(TypeError):
        m.wait("soon")


def test_wait_unknown_tag_id(m):
    m.submit(one(vine.PythonTask(nap, 0.2), "a"))
    assert m.wait_for_tag("b", 30) is None
    assert m.wait_for_task_id(999, 30) is None
    assert m.wait(30).tag == "a"


def test_close_in_flight():
    m = vine.Manager(local_workers=2)
    for i in range(50):
        m.submit(one(vine.PythonTask(nap, 100)))
    time.sleep(0.5)
    t0 = time.time()
    m.close()
    assert time.time() - t0 < 15
    with pytest.raises(vine.ManagerClosedError):
        m.submit(vine.PythonTask(nap, 1))


def test_close_while_waiting():
    m = vine.Manager(local_workers=1)
    m.submit(one(vine.PythonTask(nap, 100)))
    err = []

    def w():
        try:
            m.wait()
        except BaseException as e:
            err.append(e)

    t = threading.Thread(target=w)
    t.start()
    time.sleep(0.3)
    m.close()
    t.join(20)
    assert isinstance(err[0], vine.ManagerClosedError)


def test_resubmit_in_flight(m):
    t = one(vine.PythonTask(nap, 0.3))
    m.submit(t)
    with pytest.raises(ValueError):
        m.submit(t)
    assert m.wait(30) is t


def test_failed_resubmit_pickle(m):
    t = one(vine.PythonTask(echo, threading.Lock()))
    for _ in range(2):
        with pytest.raises(vine.NotPicklableError):
            m.submit(t)
    assert m.empty()


def test_10000_calls_over_4_slots():
    with vine.Manager(local_workers=4) as m:
        l = m.create_library_from_functions("l", echo)
        l.set_function_slots(4)
        m.install_library(l)
        for i in range(10000):
            m.submit(vine.FunctionCall("l", "echo", i))
        assert sorted(t.output for t in everything(m)) == list(range(10000))


def test_priorities(m):
    order = []
    m.submit(one(vine.PythonTask(nap, 0.5)))
    m.submit(one(vine.PythonTask(nap, 0.5)))
    for p in (1, 5, 3, -2.5, 1e9):
        t = one(vine.PythonTask(nap, 0.05), p)
        t.set_priority(p)
        m.submit(t)
    for t in everything(m):
        order.append(t.tag)
    print(order)


# ---- libraries
def lib(m, name="l", *fs, **k):
    l = m.create_library_from_functions(name, *(fs or (echo,)), **k)
    m.install_library(l)
    return l


def call(m, *a, **k):
    t = vine.FunctionCall(*a, **k)
    m.submit(t)
    got = m.wait(100)
    assert got is t
    return t


def test_lib_raises(m):
    lib(m, library_context_info=[boom, [1], {}])
    t = call(m, "l", "echo", 1)
    assert t.result == "missing library" and "ValueError" in t.reason
    ok_after(m)


def test_lib_exits(m):
    lib(m, library_context_info=[sys.exit, [3], {}])
    t = call(m, "l", "echo", 1)
    assert t.result == "missing library", t.result
    print(t.reason)
    lib(m, "k", library_context_info=[os._exit, [3], {}])
    t = call(m, "k", "echo", 1)
    assert t.result == "missing library"
    print(t.reason)
    ok_after(m)


def test_lib_missing_module(m):
    def su():
        import not_there_at_all

    lib(m, library_context_info=[su, [], {}])
    t = call(m, "l", "echo", 1)
    assert "not_there_at_all" in t.reason


def test_lib_returns_not_dict(m):
    lib(m, library_context_info=[echo, [5], {}])
    t = call(m, "l", "echo", 1)
    print(t.result, t.reason)
    assert t.result == "missing library"


def test_lib_forks_threads(m):
    def su():
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
        return {"a": 1}

    lib(m, library_context_info=[su, [], {}])
    t = call(m, "l", "echo", 1)
    assert t.output == 1, t.reason


def test_lib_setup_prints_much(m):
    def su():
        for i in range(20000):
            print("x" * 100)
        return {}

    lib(m, library_context_info=[su, [], {}])
    t = call(m, "l", "echo", 1)
    assert t.output == 1, t.reason


def test_lib_setup_child_raises(m):
    def su():
        if os.fork() == 0:
            raise ValueError("child")
        os.wait()
        return {"a": 1}

    lib(m, library_context_info=[su, [], {}])
    t = call(m, "l", "echo", 1)
    assert t.output == 1, t.reason


def test_lib_chdir_env(m):
    def su():
        os.chdir("/")
        os.environ["GVL"] = "7"
        return {}

    def f():
        return os.getcwd(), os.environ.get("GVL")

    lib(m, "l", f, library_context_info=[su, [], {}])
    t = call(m, "l", "f")
    assert t.output[1] == "7" and t.output[0] != "/"


def test_lib_two_names(m):
    lib(m)
    a = vine.FunctionCall("l", "echo", 1)
    m.submit(a)
    l2 = m.create_library_from_functions("l", lambda_echo2())
    m.install_library(l2)
    b = vine.FunctionCall("l", "echo", 1)
    m.submit(b)
    got = {t.id: t.output for t in everything(m)}
    assert got == {a.id: 1, b.id: (1, 1)}


def lambda_echo2():
    def echo(x):
        return (x, x)

    return echo


def test_lib_removed_in_flight(m):
    lib(m, "l", nap)
    ts = [vine.FunctionCall("l", "nap", 0.05) for _ in range(40)]
    for t in ts:
        m.submit(t)
    m.remove_library("l")
    assert [t.output for t in everything(m)] == [0.05] * 40
    assert call(m, "l", "nap", 0).result == "missing library"
    with pytest.raises(KeyError):
        m.remove_library("l")


def test_lib_lambda(m):
    l = m.create_library_from_functions("l", lambda x: x)
    m.install_library(l)
    t = call(m, "l", "<lambda>", 4)
    assert t.output == 4


def test_lib_generator_async(m):
    def g():
        yield 1

    lib(m, "l", g)
    t = call(m, "l", "g")
    assert not t.successful()


def test_lib_mutates(m):
    def inc():
        d = vine.load_variable_from_library("d")
        d.append(1)
        return len(d)

    lib(m, "l", inc, library_context_info=[lambda: {"d": []}, [], {}], exec_mode="fork")
    assert [call(m, "l", "inc").output for _ in range(3)] == [1, 1, 1]


def test_lib_hoist_module(m):
    import math

    def f(x):
        return math.sqrt(x)

    lib(m, "l", f, hoisting_modules=[math])
    assert call(m, "l", "f", 9).output == 3.0


def test_lib_class_method(m):
    class K:
        def meth(self, x):
            return x * 2

    l = m.create_library_from_functions("l", K().meth, max)
    m.install_library(l)
    assert call(m, "l", "meth", 4).output == 8
    assert call(m, "l", "max", 4, 5).output == 5


def test_lib_kw(m):
    def f(name=1, fn=2, library_name=3, *a, **k):
        return name, fn, library_name, k

    lib(m, "l", f)
    t = call(m, "l", "f", name=5, fn=6, library_name=7, self=8)
    assert t.output == (5, 6, 7, {"self": 8}), t.output


def test_lib_many(m):
    for i in range(12):
        lib(m, f"l{i}", echo, library_context_info=[dict, [], {"x": i}])
    for r in range(3):
        for i in range(12):
            m.submit(vine.FunctionCall(f"l{i}", "echo", i))
    assert sorted(t.output for t in everything(m)) == sorted(list(range(12)) * 3)


def test_lib_big_context(m):
    def size():
        return len(vine.load_variable_from_library("b"))

    lib(m, "l", size, library_context_info=[lambda b: {"b": b}, [b"x" * 50_000_000], {}])
    t = call(m, "l", "size")
    assert t.output == 50_000_000, t.reason


def test_call_unpicklable(m):
    lib(m)
    with pytest.raises(vine.NotPicklableError):
        m.submit(vine.FunctionCall("l", "echo", threading.Lock()))
    assert m.empty()
    assert call(m, "l", "echo", 1).output == 1


def test_install_nonlib(m):
    with pytest.raises(TypeError):
        m.install_library(vine.PythonTask(echo, 1))
    with pytest.raises(ValueError):
        m.submit(m.create_library_from_functions("l", echo))
        t = m.wait(10)
        raise ValueError(t.result)


# ---- maps and futures
def test_map_odd(m):
    assert m.map(echo, []) == []
    assert m.map(echo, (i for i in range(5)), 3) == list(range(5))
    for bad in (0, -1):
        with pytest.raises(ValueError):
            m.map(echo, [1], bad)
    with pytest.raises(TypeError):
        m.map(echo, [1], 1.5)
    r = m.map(boom, [1, 2])
    assert all(isinstance(x, ValueError) for x in r)
    assert m.pair(add, [], [1]) == []
    with pytest.raises(TypeError):
        m.tree_reduce(add, [])
    assert m.tree_reduce(add, [5]) == 5
    assert m.tree_reduce(max, range(100), 7) == 99
    assert m.treeReduce(lambda x: sum(x), range(100), 3) == 4950
    r = m.map(BadR, [1])
    print(r)


class BadR:
    def __init__(self, x):
        pass

    def __reduce__(self):
        raise RuntimeError("no")


def test_remote_map_odd(m):
    lib(m, "l", echo, boom, total)
    assert m.remote_map("echo", [], "l") == []
    assert m.remote_map("echo", range(5), "l") == list(range(5))
    assert m.remote_map("echo", range(5), "l", "x", 2) == list(range(5))
    r = m.remote_map("boom", [1, 2], "l")
    assert all(isinstance(x, ValueError) for x in r)
    assert m.remote_tree_reduce("total", range(10), "l", None, 3) == 45
    with pytest.raises(vine.LibraryError):
        m.remote_map("echo", [1], "nolib")
    with pytest.raises(vine.LibraryError):
        m.remote_map("nofn", [1], "l")


def total(x):
    return sum(x)


@pytest.fixture
def ex():
    with vine.FuturesExecutor(opts={"cores": 2}) as e:
        yield e


def test_ex_nested(ex):
    a = ex.submit(add, 1, 2)
    b = ex.submit(echo, {"k": [a, (a, {"d": a})], "s": (1,)})
    assert b.result(60) == {"k": [3, (3, {"d": 3})], "s": (1,)}
    t = ex.future_task(echo, [{"x": (a,)}])
    t.set_cores(1)
    assert ex.submit(t).result(60) == [{"x": (3,)}]


def test_ex_wait_timeouts(ex):
    fs = [ex.submit(nap, x) for x in (0.01, 5)]
    d, nd = cf.wait(fs, timeout=0.5)
    print(len(d), len(nd))
    with pytest.raises(cf.TimeoutError):
        for f in cf.as_completed(fs, timeout=0.5):
            pass
    with pytest.raises(cf.TimeoutError):
        fs[1].result(0)
    assert fs[1].exception(60) is None


def test_ex_cancel(ex):
    fs = [ex.submit(nap, 0.3) for _ in range(20)]
    c = [f.cancel() for f in fs]
    d = cf.wait(fs, 60)[0]
    assert len(d) == 20
    print(c)


def test_ex_callback_submits(ex):
    out = []
    ev = threading.Event()

    def cb(f):
        out.append(f.result())
        if len(out) < 20:
            ex.submit(add, f.result(), 1).add_done_callback(cb)
        else:
            ev.set()

    ex.submit(add, 0, 0).add_done_callback(cb)
    assert ev.wait(60), out
    assert out == list(range(20))


def test_ex_task_callback_submits(ex):
    ev = threading.Event()
    res = []

    def cb(f):
        t = ex.future_task(add, f.result(), 1)
        t.set_cores(1)
        g = ex.submit(t)
        g.add_done_callback(lambda g: (res.append(g.result()), ev.set()))

    t = ex.future_task(add, 1, 1)
    t.set_cores(1)
    ex.submit(t).add_done_callback(cb)
    assert ev.wait(60)
    assert res == [3]


def test_ex_callback_raises(ex):
    f = ex.submit(add, 1, 1)
    f.add_done_callback(lambda f: 1 / 0)
    assert f.result(60) == 2
    assert ex.submit(add, 1, 2).result(60) == 3


def test_ex_map_variants(ex):
    assert list(ex.map(add, [1, 2], [3, 4])) == [4, 6]
    assert list(ex.map(echo, range(10), chunksize=3)) == list(range(10))
    assert list(ex.map(echo, [])) == []
    for bad in (0, -3):
        with pytest.raises(ValueError):
            ex.map(echo, [1], chunksize=bad)
    assert list(ex.map(add, itertools.count(), [1, 2, 3])) == [1, 3, 5]
    with pytest.raises(ValueError):
        list(ex.map(boom, [1, 2]))
    assert ex.map(echo, range(4)).result(60) == [0, 1, 2, 3]
    assert ex.reduce(add, range(10)).result(60) == 45
    assert ex.allpairs(add, [1, 2], [10, 20]).result(60) == [[11, 21], [12, 22]]
    assert ex.allpairs(add, [], []).result(60) == []


def test_ex_foreign_future(ex):
    with cf.ThreadPoolExecutor(1) as tp:
        f = tp.submit(nap, 0.1)
        assert ex.submit(add, f, 1).result(60) == 1.1
        g = tp.submit(boom)
        h = ex.submit(add, g, 1)
        with pytest.raises(ValueError):
            h.result(60)
    pend = cf.Future()
    h = ex.submit(add, pend, 1)
    assert h.cancel()
    assert h.cancelled()


def test_ex_failed_dep(ex):
    a = ex.submit(boom, 3)
    b = ex.submit(echo, [a])
    c = ex.submit(echo, b)
    with pytest.raises(ValueError):
        c.result(60)
    t = ex.future_task(echo, [c])
    t.set_cores(1)
    with pytest.raises(ValueError):
        ex.submit(t).result(60)


def test_ex_shutdown_variants():
    for kw in (
        {"wait": True},
        {"wait": False},
        {"wait": True, "cancel_futures": True},
        {"wait": False, "cancel_futures": True},
    ):
        e = vine.FuturesExecutor(opts={"cores": 1})
        fs = [e.submit(nap, 0.05) for _ in range(5)]
        t = e.future_task(nap, 0.05)
        fs.append(e.submit(t))
        e.shutdown(**kw)
        d, nd = cf.wait(fs, 60)
        assert not nd, kw
        with pytest.raises(RuntimeError):
            e.submit(nap, 0)
        e.shutdown()


def test_ex_del_without_shutdown():
    e = vine.FuturesExecutor(opts={"cores": 1})
    f = e.submit(add, 1, 1)
    assert f.result(60) == 2
    e.manager.close()


def test_ex_unpicklable(ex):
    with pytest.raises(Exception):
        ex.submit(echo, threading.Lock()).result(60)
    t = ex.future_task(echo, threading.Lock())
    with pytest.raises(Exception):
        ex.submit(t).result(60)
    assert ex.submit(add, 1, 1).result(60) == 2
    with pytest.raises(Exception):
        ex.submit(threading.Lock).result(60)
    with pytest.raises(TypeError):
        ex.submit(5)


def test_ex_prints(ex):
    t = ex.future_task(print, "hello")
    t.set_cores(1)
    f = ex.submit(t)
    assert f.result(60) is None
    assert t.std_output == "hello\n"


def test_ex_set_temp(ex):
    t = ex.future_task(echo, 5)
    t.enable_temp_output()
    t.set_cores(1)
    f = ex.submit(t)
    print(f.result(60), t.output_file)


def test_ex_task_without_cores_then_result(ex):
    assert ex.submit(ex.future_task(add, 1, 2)).result(60) == 3


def test_future_pickled_as_arg_of_task(m):
    # a future among arguments of a plain PythonTask
    f = m.executor().submit(add, 1, 2)
    with pytest.raises(Exception) as e:
        m.submit(vine.PythonTask(echo, f))
        t = m.wait(60)
        raise RuntimeError(t.output)
    print(repr(e.value)[:200])


# ---- DaskVine
def graph(n=20):
    return delayed(sum)([delayed(add)(i, i) for i in range(n)])


@pytest.mark.parametrize(
    "opt",
    [
        dict(max_pending=1),
        dict(submit_per_cycle=1),
        dict(prune_depth=2),
        dict(lazy_transfers=True),
        dict(worker_transfers=False),
        dict(task_mode="tasks"),
        dict(
            task_mode="function-calls",
            lib_resources={"cores": 2, "memory": 500},
            lib_command="true",
            lib_modules=[os],
            lib_extra_functions=[echo],
        ),
        dict(scheduling_mode="files"),
        dict(task_priority_mode="FIFO"),
        dict(retries=5),
        dict(resources={"cores": 1, "memory": 100}),
        dict(resources_mode="fixed"),
        dict(verbose=True),
        dict(progress_disable=True, progress_label="[green]x"),
        dict(env_vars={"A": "1"}),
        dict(low_memory_mode=True),
        dict(checkpoint_fn=lambda d, k: True),
        dict(hoisting_modules=[os, sys]),
        dict(import_modules=["json"]),
    ],
)
def test_get_opts(m, opt):
    assert graph().compute(scheduler=m.get, **opt) == 380


@pytest.mark.parametrize(
    "opt",
    [
        dict(max_pending="x"),
        dict(prune_depth=1.5),
        dict(task_mode="x"),
        dict(scheduling_mode="x"),
        dict(resources_mode="max"),
        dict(resources={"cpus": 1}),
        dict(nonsense=1),
        dict(env_vars=5),
        dict(extra_files=[1]),
        dict(wrapper=5),
        dict(checkpoint_fn=5),
        dict(retries=-1),
        dict(resources={"cores": -1}),
        dict(lib_modules=5),
    ],
)
def test_get_bad_opts(m, opt):
    with pytest.raises((TypeError, ValueError, NotImplementedError)):
        graph().compute(scheduler=m.get, **opt)
    assert graph().compute(scheduler=m.get) == 380


def test_wrapper(m):
    seen = []

    def w(key, fn, *args):
        return ("w", key), fn(*args)

    try:
        r = graph().compute(scheduler=m.get, wrapper=w, wrapper_proc=seen.append)
        assert r == 380
        print(len(seen), seen[:2])
    except TypeError as e:
        print("TypeError", e)
        raise


def test_wrapper_raises(m):
    def w(*a):
        raise ValueError("wrapper")

    with pytest.raises(ValueError):
        graph().compute(scheduler=m.get, wrapper=w)

    def w2(key, fn, *args):
        return (1, fn(*args))

    def p(x):
        raise KeyError("proc")

    with pytest.raises(KeyError):
        graph().compute(scheduler=m.get, wrapper=w2, wrapper_proc=p)
    assert graph().compute(scheduler=m.get) == 380


def test_checkpoint_raises(m):
    def c(d, k):
        raise ValueError("ck")

    with pytest.raises(ValueError):
        graph().compute(scheduler=m.get, checkpoint_fn=c)


def test_files_env(m, tmp_path):
    f = tmp_path / "f"
    f.write_text("data")
    df = m.declare_file(str(f))
    b = m.declare_buffer("buf")

    def rd(x):
        return open("a/f").read() + open("b").read() + os.environ["GVQ"] + str(x)

    r = delayed(list)([delayed(rd)(i) for i in range(5)]).compute(
        scheduler=m.get, extra_files={df: "a/f", b: "b"}, env_vars={"GVQ": lambda mgr, task: "q"}
    )
    assert r == [f"databufq{i}" for i in range(5)]


def test_dask_unpicklable(m):
    with pytest.raises(Exception) as e:
        delayed(echo)(threading.Lock()).compute(scheduler=m.get)
    print(repr(e.value)[:200])
    assert graph().compute(scheduler=m.get) == 380
    with pytest.raises(Exception):
        delayed(threading.Lock)().compute(scheduler=m.get)
    with pytest.raises(ZeroDivisionError):
        delayed(lambda: 1 / 0)().compute(scheduler=m.get)


def test_dask_single_key(m):
    assert m.get({"a": (add, 1, 2), "b": (add, "a", 3)}, "b") == 6
    assert m.get({"a": (add, 1, 2), "b": (add, "a", 3)}, [["a", "b"], "a"]) == ((3, 6), 3)
    with pytest.raises(Exception):
        m.get({"a": 1}, "zz")


def test_mix_all(m):
    lib(m, "l", echo)
    m.submit(vine.FunctionCall("l", "echo", 1))
    m.submit(one(vine.PythonTask(nap, 0.1)))
    m.submit(vine.Task("echo hi", cores=1))
    assert graph().compute(scheduler=m.get) == 380
    assert m.map(echo, range(5)) == list(range(5))
    assert len(list(everything(m))) == 3


def test_daskvine_name():
    with vine.DaskVine(port=[9200, 9300], name="odd", local_workers=1) as dv:
        with dask.config.set(scheduler=dv.get):
            assert graph().compute(resources={"cores": 1}, lazy_transfers=True) == 380
