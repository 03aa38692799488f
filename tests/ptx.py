"""Run what a GPU would be given, without a GPU: PTX, instruction by instruction, in NumPy.

All lanes of all programs of a launch take each step together, so a register is an array with one
number for every lane. What a GPU would refuse, or get wrong at random, is an error here: an address
outside every tensor, one that is not aligned to what is moved, and two writes of different numbers
to one place. Only what the kernels of this package are compiled to is known; add to it what is
missing. The meaning of each instruction: https://docs.nvidia.com/cuda/parallel-thread-execution.
"""

import ctypes
import math
import re

import numpy as np

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
REGISTER = {"rs": 16, "r": 32, "rd": 64}  # bits, by the letters of the name
LANE = np.arange(32)


class Fault(Exception):
    """What a GPU would refuse, or do otherwise every time."""


def parse(ptx: str):
    """Return the instructions [(guard, wanted, words, operands, text)], labels and parameters."""
    head, body = ptx.split(".visible .entry", 1)[1].split("\n{\n", 1)
    parameters = re.findall(r"\.param \.(\w+).*?(\w+_param_\d+)", head)
    body = re.sub(r"//.*|^\s*\.(loc|reg|pragma)\b.*$", "", body.split("\n}\n")[0], flags=re.M)
    code, labels = [], {}
    for text in re.split(r";|\n", body):
        text = text.strip().strip("{}" if not re.search(r"[\w\]]", text) else "").strip()
        if label := re.fullmatch(r"(\$?\w+):", text):
            labels[label[1]] = len(code)
        elif text:
            negated, guard, name, rest = re.fullmatch(
                r"(?:@(!?)(%p\d+)\s+)?(\S+)\s*(.*)", text
            ).groups()
            operands = re.split(r",(?![^{\[]*[}\]])", rest) if rest else []
            operands = [operand.strip() for operand in operands]
            code.append((guard, not negated, name.split("."), operands, text))
    return code, labels, parameters


# ---- Numbers ---------------------------------------------------------------------------------


def width(kind: str) -> int:
    """The bits of a type: 16 for bf16, 32 for s32 and f16x2."""
    special = {"pred": 1, "bf16": 16, "tf32": 32, "f16x2": 32, "bf16x2": 32, "f32x2": 64}
    return special.get(kind) or int(kind[1:])


def read_as(bits: np.ndarray, kind: str) -> np.ndarray:
    """Read bits as numbers of a type; small floats as float32, two of them as a row."""
    if kind == "f32x2":
        return bits.view(np.float32).reshape(-1, 2)
    if kind == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    if kind == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)  # matrix units ignore the rest
    if kind[0] == "f":
        return bits.view({"f16": np.float16, "f32": np.float32}[kind]).astype(np.float32)
    return bits.view(SIGNED[width(kind)]) if kind[0] == "s" else bits


def round_to(value: np.ndarray, kind: str) -> np.ndarray:
    """Bits of numbers in a type, rounded to nearest, ties to even."""
    if kind == "f32x2":
        return np.ascontiguousarray(value.astype(np.float32)).view(np.uint64)[:, 0]
    if kind == "bf16":
        bits = value.astype(np.float32).view(np.uint32)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(value), 0x7FFF, bits).astype(np.uint16)
    if kind[0] == "f":
        value = value.astype({"f16": np.float16, "f32": np.float32}[kind])
        return value.view(UNSIGNED[width(kind)])
    to = SIGNED if kind[0] == "s" else UNSIGNED
    return value.astype(to[width(kind)]).view(UNSIGNED[width(kind)])


def towards_zero(a, b):
    """Integer division as C has it."""
    a, b = a.astype(np.int64), b.astype(np.int64)
    return np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b)


ARITHMETIC = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "mad": lambda a, b, c: a * b + c, "fma": lambda a, b, c: a.astype(np.float64) * b + c,
    "div": lambda a, b: a / b if a.dtype.kind == "f" else towards_zero(a, b),
    "rem": lambda a, b: a - towards_zero(a, b).astype(a.dtype) * b,
    "neg": lambda a: -a, "abs": np.abs, "not": lambda a: ~a, "mov": lambda a: a,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "ex2": np.exp2, "lg2": np.log2, "rcp": lambda a: 1 / a,
    "max": lambda *all: all[0] if len(all) == 1 else np.fmax(all[0], ARITHMETIC["max"](*all[1:])),
    "min": lambda *all: all[0] if len(all) == 1 else np.fmin(all[0], ARITHMETIC["min"](*all[1:])),
}  # fmt: skip
COMPARISON = {
    "eq": np.equal, "ne": np.not_equal, "neu": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


# ---- Memory ----------------------------------------------------------------------------------


class Tensors:
    """The memory of some CPU tensors, and which of its bytes have been written."""

    def __init__(self, tensors):
        self.kept = tensors
        spans = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        self.parts = [
            (start, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start)),
             np.zeros(size, bool))
            for start, size in spans.items() if size
        ]  # fmt: skip

    def find(self, address, size):
        """Return the bytes of the one tensor that all addresses lie in, and offsets in it."""
        if (address % np.uint64(size)).any():
            raise Fault("misaligned address")
        low, high = int(address.min()), int(address.max()) + size
        for start, data, written in self.parts:
            if start <= low and high <= start + data.size:
                at = (address - np.uint64(start)).astype(np.int64)[:, None] + np.arange(size)
                return data, written, at
        raise Fault("address outside of all tensors")

    def load(self, address, size):
        data, _, at = self.find(address, size)
        return data[at]

    def store(self, address, value):
        data, written, at = self.find(address, value.shape[1])
        before = written[at]
        clash = (data[at] != value)[before].any()
        data[at], written[at] = value, True
        if clash or (data[at] != value).any():
            raise Fault("two different numbers are written to one place")


# ---- The machine -----------------------------------------------------------------------------


class Launch:
    """One launch of a kernel: ``values`` are its arguments, tensors as addresses."""

    def __init__(self, ptx, grid, warps, shared, values, tensors):
        self.code, self.labels, parameters = parse(ptx)
        self.grid, self.threads = (*grid, 1, 1)[:3], 32 * warps
        self.memory = Tensors(tensors)
        programs = math.prod(self.grid)
        self.shared = np.full((programs, max(shared, 16)), 0xFF, np.uint8)  # not-a-number at first
        scratch = [0] * (len(parameters) - len(values))  # pointers that Triton adds, unused here
        self.parameters = {
            name: round_to(np.array([value]), kind)[0]
            for (kind, name), value in zip(parameters, [*values, *scratch], strict=True)
        }
        waiting = [(0, np.arange(programs), {})]
        with np.errstate(all="ignore"):
            while waiting:
                waiting += self.run(*waiting.pop())

    def run(self, at, programs, registers):
        """Go on from one instruction until the programs end or part: return the parts."""
        self.registers, self.products = registers, {}
        self.program = np.repeat(programs, self.threads)
        self.thread = np.tile(np.arange(self.threads), len(programs))
        while True:
            guard, wanted, words, operands, text = self.code[at]
            at += 1
            on = None if guard is None else self.registers[guard] == wanted
            try:
                if words[0] not in ("bra", "ret"):
                    self.step(words, operands, on)
                    continue
            except Exception as error:
                error.add_note(f"in: {text}")
                raise
            target = self.labels[operands[0]] if operands else None
            go = np.ones(len(programs), bool)
            if on is not None:
                by_program = on.reshape(len(programs), -1)
                go = by_program.all(1)
                if (go != by_program.any(1)).any():
                    raise NotImplementedError(f"lanes of a program part: {text}")
            if not go.any():
                continue
            if go.all() and target is not None:
                at = target
                continue
            parts = ((target, go), (at, ~go))
            return [
                (place, programs[who], self.of(np.repeat(who, self.threads)))
                for place, who in parts if place is not None and who.any()
            ]  # fmt: skip

    def of(self, lanes):
        return {name: value[lanes] for name, value in self.registers.items()}

    def get(self, operand: str, bits: int) -> np.ndarray:
        """The bits of an operand, for every lane."""
        if operand in self.registers:
            value = self.registers[operand]
            return (
                value if bits == 1 or value.itemsize * 8 <= bits else value.astype(UNSIGNED[bits])
            )
        if re.match(r"%(r|rs|rd)\d", operand):  # never written: what is in it must not matter
            return np.full(self.program.shape, 2**bits - 1, UNSIGNED[bits])
        if operand[0] == "%":
            value = self.special(*operand[1:].split("."))
        elif operand == "global_smem":
            value = np.int64(0)
        else:
            value = int(operand[2:], 16) if operand[:2] == "0f" else int(operand.rstrip("U"), 0)
            value = value != 0 if bits == 1 else UNSIGNED[bits](value & (2**bits - 1))
        value = np.broadcast_to(value, self.program.shape)
        return value if bits == 1 else value.astype(UNSIGNED[bits])

    def special(self, name, axis):
        axis = "xyz".index(axis)
        if name == "tid":
            return self.thread if axis == 0 else np.int64(0)
        if name == "nctaid":
            return np.int64(self.grid[axis])
        return self.program // math.prod(self.grid[:axis]) % self.grid[axis]  # ctaid

    def put(self, name: str, value: np.ndarray, on=None) -> None:
        """Write a register, in the lanes that are on; narrow numbers are filled up."""
        if name == "_":
            return
        self.products.pop(name, None)
        if not name.startswith("%p"):
            to = REGISTER[re.match(r"%([a-z]+)", name)[1]]
            value = value.astype(UNSIGNED[to]) if value.dtype.kind == "u" else (
                value.astype(SIGNED[to]).view(UNSIGNED[to]))  # fmt: skip
        if on is not None:
            value = np.where(on, value, self.registers.get(name, np.zeros_like(value)))
        self.registers[name] = np.array(np.broadcast_to(value, self.program.shape))

    def step(self, words, operands, on) -> None:
        name, kind = words[0], words[-1]
        if name in ("bar", "membar", "fence"):
            return  # all lanes are always at the same place
        special = getattr(self, f"do_{name}", None)
        if special:
            special(words, operands, on)
        elif words[1] in ("wide", "hi"):
            self.put(operands[0], self.wide(words, operands[1:]), on)
        elif name in ARITHMETIC:
            self.arithmetic(words, operands, on)
        else:
            raise NotImplementedError(f"{'.'.join(words)} ({kind}) is not known")

    def arithmetic(self, words, operands, on) -> None:
        name, kind = words[0], words[-1]
        kinds = [kind] * len(operands[1:])
        if words[-2:] == ["f32", "bf16"] or words[-2:] == ["f32", "f16"]:
            kinds, kind = [kind, kind, "f32"], "f32"  # an fma of half numbers
        numbers = [read_as(self.get(a, width(k)), k) if k != "pred" else self.get(a, 1)
                   for a, k in zip(operands[1:], kinds, strict=True)]  # fmt: skip
        product = None
        if kind == "f32" and "rn" not in words:  # a product and a sum may become one instruction
            if name == "mul":
                product = numbers[0].astype(np.float64) * numbers[1]
            elif name in ("add", "sub"):
                exact = [self.products.get(a) for a in operands[1:]]
                place = next((n for n, p in enumerate(exact) if p is not None), None)
                if place is not None:
                    numbers[place] = exact[place]
        result = ARITHMETIC[name](*numbers)
        if "relu" in words:
            result = np.maximum(result, 0)
        if "ftz" in words:
            result = np.where(np.abs(result) < 2.0**-126, 0, result)
        self.put(operands[0], result if kind == "pred" else round_to(result, kind), on)
        if product is not None and on is None:
            self.products[operands[0]] = product

    def wide(self, words, operands):
        """The whole product, of twice the bits; "hi" is the upper half of it."""
        kind, bits = words[-1], width(words[-1])
        large = (SIGNED if kind[0] == "s" else UNSIGNED)[2 * bits]
        a, b = (read_as(self.get(operand, bits), kind).astype(large) for operand in operands[:2])
        if words[1] == "hi":
            return (a * b >> large(bits)).astype((SIGNED if kind[0] == "s" else UNSIGNED)[bits])
        rest = self.get(operands[2], 2 * bits).view(large) if words[0] == "mad" else large(0)
        return a * b + rest

    # -- One method for each instruction that is no plain arithmetic ------------------------------

    def do_setp(self, words, operands, on):
        a, b = (read_as(self.get(x, width(words[-1])), words[-1]) for x in operands[1:])
        result = COMPARISON[words[1]](a, b)
        if words[1] == "ne" and a.dtype.kind == "f":
            result &= ~(np.isnan(a) | np.isnan(b))
        self.put(operands[0], result, on)

    def do_selp(self, words, operands, on):
        a, b = (self.get(x, width(words[-1])) for x in operands[1:3])
        self.put(operands[0], np.where(self.registers[operands[3]], a, b), on)

    def do_mov(self, words, operands, on):
        """Copy, or take a register apart into {two}, or put {two} together."""
        to, of = operands
        bits = width(words[-1])
        if of[0] == "{":
            parts = [
                self.get(x.strip(), bits // 2).astype(UNSIGNED[bits]) for x in of[1:-1].split(",")
            ]
            self.put(to, parts[0] | parts[1] << UNSIGNED[bits](bits // 2), on)
        elif to[0] == "{":
            value, half = self.get(of, bits), UNSIGNED[bits](bits // 2)
            for n, name in enumerate(to[1:-1].split(",")):
                self.put(
                    name.strip(),
                    (value >> half * UNSIGNED[bits](n)).astype(UNSIGNED[bits // 2]),
                    on,
                )
        else:
            self.put(to, self.get(of, bits), on)

    def do_cvt(self, words, operands, on):
        to, of = words[-2:]
        values = [read_as(self.get(x, width(of)), of) for x in operands[1:]]
        if to.endswith("x2"):
            high, low = (round_to(value, to[:-2]).astype(np.uint32) for value in values)
            self.put(operands[0], high << np.uint32(16) | low, on)
        else:
            bits = round_to(values[0], to)
            self.put(operands[0], bits.view(SIGNED[width(to)]) if to[0] == "s" else bits, on)

    def do_shl(self, words, operands, on):
        bits = width(words[-1])
        value, by = read_as(self.get(operands[1], bits), words[-1]), self.get(operands[2], 32)
        small = np.minimum(by, bits - 1).astype(value.dtype)
        shifted = value << small if words[0] == "shl" else value >> small
        keeps_sign = words[0] == "shr" and words[-1][0] == "s"
        self.put(
            operands[0],
            shifted if keeps_sign else np.where(by < bits, shifted, 0).astype(value.dtype),
            on,
        )

    do_shr = do_shl

    def do_bfe(self, words, operands, on):
        """Take some bits out."""
        value, first, count = self.get(operands[1], 32), int(operands[2]), int(operands[3])
        top = 32 - min(first + count, 32)
        moved = read_as(value << np.uint32(top), words[-1])
        self.put(operands[0], moved >> moved.dtype.type(first + top), on)

    def do_prmt(self, words, operands, on):
        """Choose four of the eight bytes of two registers."""
        a, b, choice = (self.get(x, 32) for x in operands[1:4])
        both = np.stack([a, b], 1).view(np.uint8).reshape(-1, 8)
        chosen = np.stack([choice >> np.uint32(4 * n) & np.uint32(15) for n in range(4)], 1)
        result = np.take_along_axis(both, (chosen & 7).astype(np.int64), 1)
        sign = np.where(result & 0x80, 0xFF, 0).astype(np.uint8)
        result = np.where(chosen & 8, sign, result)
        self.put(operands[0], np.ascontiguousarray(result).view(np.uint32)[:, 0], on)

    def do_shfl(self, words, operands, on):
        """Read a register of another lane of the warp."""
        value, by, clamp = (self.get(x, 32).reshape(-1, 32).astype(np.int64) for x in operands[1:4])
        segment = clamp >> 8 & 31
        source = {"bfly": LANE ^ by, "idx": LANE & segment | by & 31 & ~segment}[words[2]]
        self.put(operands[0], np.take_along_axis(value, source, 1).astype(np.uint32).ravel(), on)

    def address(self, operand, bits):
        base, plus = re.fullmatch(r"\[\s*([%\w]+)\s*(?:\+\s*(-?\d+)\s*)?\]", operand).groups()
        return self.get(base, bits) + UNSIGNED[bits](int(plus or 0) & 2**bits - 1)

    def do_ld(self, words, operands, on):
        names = [name.strip() for name in operands[0].strip("{}").split(",")]
        kind, size = words[-1], width(words[-1]) // 8
        if words[1] == "param":
            value = self.parameters[operands[1].strip("[]")]
            value = np.broadcast_to(read_as(np.array([value]), kind), self.program.shape)
            return self.put(names[0], value, on)
        lanes = np.flatnonzero(np.ones_like(self.program) if on is None else on)
        found = np.zeros((self.program.size, len(names) * size), np.uint8)
        if lanes.size:
            found[lanes] = self.load(words[1], operands[1], lanes, len(names) * size)
        for n, name in enumerate(names):
            part = np.ascontiguousarray(found[:, n * size : (n + 1) * size])
            self.put(name, part.view(UNSIGNED[8 * size])[:, 0], on)

    def load(self, space, operand, lanes, size):
        if space == "global":
            return self.memory.load(self.address(operand, 64)[lanes], size)
        return self.shared[self.program[lanes, None], self.in_shared(operand, lanes, size)]

    def in_shared(self, operand, lanes, size):
        address = self.address(operand, 32)[lanes].astype(np.int64)
        if (address % size).any() or address.max() + size > self.shared.shape[1]:
            raise Fault("misaligned address, or one outside of shared memory")
        return address[:, None] + np.arange(size)

    def do_st(self, words, operands, on):
        names = [name.strip() for name in operands[1].strip("{}").split(",")]
        bits = width(words[-1])
        lanes = np.flatnonzero(np.ones_like(self.program) if on is None else on)
        value = np.stack([self.get(name, bits)[lanes] for name in names], 1).view(np.uint8)
        if lanes.size and words[1] == "global":
            self.memory.store(self.address(operands[0], 64)[lanes], value)
        elif lanes.size:
            places = self.in_shared(operands[0], lanes, value.shape[1])
            self.shared[self.program[lanes, None], places] = value

    def do_ldmatrix(self, words, operands, on):
        """Load or store 8×8 matrices of 16 bits; lane n has the address of row n."""
        loads = words[0] == "ldmatrix"
        names, where = operands if loads else operands[::-1]
        start = self.in_shared(where, np.arange(self.program.size), 16)[:, 0].reshape(-1, 32)
        warp = self.program.reshape(-1, 32)
        pair = np.stack([2 * (LANE % 4), 2 * (LANE % 4) + 1])
        row, column = (pair, LANE // 4) if "trans" in words else (LANE // 4, pair)
        row, column = np.broadcast_to(row, (2, 32)), np.broadcast_to(column, (2, 32))
        for n, name in enumerate(names.strip("{} ").split(",")):
            places = [start[:, 8 * n + row[h]] + 2 * column[h] for h in (0, 1)]
            places = np.stack([places[h // 2] + h % 2 for h in range(4)], 2)  # bytes of a register
            if loads:
                found = self.shared[warp[..., None], places]
                self.put(name.strip(), np.ascontiguousarray(found).view(np.uint32).ravel())
            else:
                value = self.get(name.strip(), 32).view(np.uint8).reshape(places.shape)
                self.shared[warp[..., None], places] = value

    do_stmatrix = do_ldmatrix

    def do_mma(self, words, operands, on):
        """D = A·B + C for 16×K and K×8 matrices, spread over the lanes of a warp."""
        kind, depth = words[-2], int(re.search(r"k(\d+)", words[3])[1])
        names = [[name.strip() for name in x.strip("{} ").split(",")] for x in operands]
        group, place = LANE >> 2, LANE & 3
        registers = [[self.get(x, 32).reshape(-1, 32) for x in some] for some in names[1:]]
        a = np.zeros((len(registers[0][0]), 16, depth), np.float64)
        b, c = np.zeros((len(a), depth, 8)), np.zeros((len(a), 16, 8))
        each = 1 if kind == "tf32" else 2  # numbers in a register
        for h in range(each):

            def part(bits, h=h):
                bits = bits if each == 1 else (bits >> np.uint32(16 * h)).astype(np.uint16)
                return read_as(bits, kind)

            for n, bits in enumerate(registers[0]):
                a[:, group + 8 * (n % 2), each * place + h + 4 * each * (n // 2)] = part(bits)
            for n, bits in enumerate(registers[1]):
                b[:, each * place + h + 4 * each * n, group] = part(bits)
        for n, bits in enumerate(registers[2]):
            c[:, group + 8 * (n // 2), 2 * place + n % 2] = read_as(bits, "f32")
        result = round_to(a @ b + c, "f32")
        for n, name in enumerate(names[0]):
            self.put(name, result[:, group + 8 * (n // 2), 2 * place + n % 2].ravel())
