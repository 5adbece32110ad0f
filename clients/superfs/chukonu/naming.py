"""What a column is called that was not given a name, as Spark calls it."""

from __future__ import annotations

import datetime

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t

_INFIX = {"+", "-", "*", "/", "%", "=", "<=>", "<", "<=", ">", ">=", "and", "or", "&", "|", "^"}
_CALLED = {"power": "POWER", "bitwise_not": "~", "reverse_string": "reverse"}
_CALLED |= {"reverse_array": "reverse"}


def name_of(expr: e.Expr) -> str:
    match expr:
        case e.Alias(_, name):
            return name
        case e.Ref(_, name):
            return name
        case e.Name(text):
            return text.rpartition(".")[2]
        case e.Var(number):
            return f"x_{number}"
        case e.Lambda(function, child, variables, body):
            pairs = isinstance(child, e.Call) and child.function == "zip_pairs"
            arrays_of = child.children if pairs else (child,)
            arrays = ", ".join(map(name_of, arrays_of))
            return f"{function}({arrays}, {_lambda_name(body, variables)})"
        case e.Fold(child, initial, given, merge, last, finish):
            first = _lambda_name(merge, given)
            begin = f"{name_of(child)}, {name_of(initial)}"
            return f"aggregate({begin}, {first}, {_lambda_name(finish, last)})"
        case e.Star():
            return "*"
        case e.Lit(value, kind):
            return _literal(value, kind)
        case e.Cast(child, kind, attempt):
            return f"{'TRY_CAST' if attempt else 'CAST'}({name_of(child)} AS {kind.sql()})"
        case e.Case(branches, otherwise):
            whens = "".join(f" WHEN {name_of(c)} THEN {name_of(v)}" for c, v in branches)
            bare = isinstance(otherwise, e.Lit) and otherwise.value is None
            return f"CASE{whens}{'' if bare else f' ELSE {name_of(otherwise)}'} END"
        case e.Explode(position=position):
            return "pos" if position else "col"
        case e.Over(function):
            return f"{name_of(function)} OVER (...)"
        case e.Order(child, descending, last):
            way = "DESC" if descending else "ASC"
            return f"{name_of(child)} {way} NULLS {'LAST' if last else 'FIRST'}"
        case e.Aggregate(function, args, distinct):
            inside = ", ".join(name_of(arg) for arg in args) or "1" * (function == "count")
            return f"{function}({'DISTINCT ' if distinct else ''}{inside})"
        case e.PythonUDF(name, _, args):
            return f"{name}({', '.join(map(name_of, args))})"
        case e.Call(function, args):
            return _call(function, [name_of(arg) for arg in args])
    return str(expr)


def _lambda_name(body: e.Expr, variables: tuple[e.Var, ...]) -> str:
    text = name_of(body)
    for var in variables:
        text = text.replace(f"x_{var.number}", "namedlambdavariable()")
    return f"lambdafunction({text}, {', '.join(['namedlambdavariable()'] * len(variables))})"


def _call(function: str, args: list[str]) -> str:
    if function in _INFIX and len(args) == 2:
        symbol = function.upper() if function.isalpha() else function
        return f"({args[0]} {symbol} {args[1]})"
    if function == "not":
        return f"(NOT {args[0]})"
    if function in ("isnull", "isnotnull"):
        return f"({args[0]} {'IS NULL' if function == 'isnull' else 'IS NOT NULL'})"
    if function == "in":
        return f"({args[0]} IN ({', '.join(args[1:])}))"
    if function in ("getitem", "getarray", "getfield"):
        return f"{args[0]}.{args[1]}" if function == "getfield" else f"{args[0]}[{args[1]}]"
    if function.startswith("decimal") and len(function) == 8:
        return f"({args[0]} {function[7]} {args[1]})"
    return f"{_CALLED.get(function, function)}({', '.join(args)})"


def _literal(value: object, kind: t.DataType) -> str:
    if value is None:
        return "NULL"
    if kind == t.BOOLEAN:
        return str(value).lower()
    if kind == t.DATE:
        return f"DATE '{value}'"
    if isinstance(value, datetime.datetime):
        from superfs.chukonu.catalog.moments import written

        return f"TIMESTAMP '{written(value)}'"
    return str(value)
