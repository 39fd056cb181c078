"""The names and parameters that plug-ins written for Dassl import, call and override."""

import importlib
import inspect
from typing import Any

import pytest

# Names that each module defines, with their parameters in order
DEFINED = {
    "dassl.config": """
        get_cfg_default()
        clean_cfg(cfg, trainer)
    """,
    "dassl.data.data_manager": """
        build_data_loader(cfg, sampler_type, data_source, batch_size, n_domain, n_ins, tfm, is_train, dataset_wrapper)
        DataManager
        DataManager.__init__(self, cfg, custom_tfm_train, custom_tfm_test, dataset_wrapper)
        DataManager.num_classes(self)
        DataManager.num_source_domains(self)
        DataManager.lab2cname(self)
        DataManager.show_dataset_summary(self, cfg)
        DatasetWrapper
        DatasetWrapper.__init__(self, cfg, data_source, transform, is_train)
        DatasetWrapper.__len__(self)
        DatasetWrapper.__getitem__(self, idx)
        DatasetWrapper._transform_image(self, tfm, img0)
    """,
    "dassl.data.datasets.base_dataset": """
        Datum
        Datum.__init__(self, impath, label, domain, classname)
        Datum.impath(self)
        Datum.label(self)
        Datum.domain(self)
        Datum.classname(self)
        DatasetBase
        DatasetBase.__init__(self, train_x, train_u, val, test)
        DatasetBase.train_x(self)
        DatasetBase.train_u(self)
        DatasetBase.val(self)
        DatasetBase.test(self)
        DatasetBase.lab2cname(self)
        DatasetBase.classnames(self)
        DatasetBase.num_classes(self)
        DatasetBase.get_num_classes(data_source)
        DatasetBase.get_lab2cname(data_source)
        DatasetBase.check_input_domains(self, source_domains, target_domains)
        DatasetBase.is_input_domain_valid(self, input_domains)
        DatasetBase.download_data(self, url, dst, from_gdrive)
        DatasetBase.generate_fewshot_dataset(self, *data_sources, num_shots, repeat)
        DatasetBase.split_dataset_by_label(self, data_source)
        DatasetBase.split_dataset_by_domain(self, data_source)
    """,
    "dassl.data.datasets.build": """
        DATASET_REGISTRY
        build_dataset(cfg)
    """,
    "dassl.data.samplers": """
        RandomDomainSampler
        RandomDomainSampler.__init__(self, data_source, batch_size, n_domain)
        RandomDomainSampler.__iter__(self)
        RandomDomainSampler.__len__(self)
        SeqDomainSampler
        SeqDomainSampler.__init__(self, data_source, batch_size)
        SeqDomainSampler.__iter__(self)
        SeqDomainSampler.__len__(self)
        RandomClassSampler
        RandomClassSampler.__init__(self, data_source, batch_size, n_ins)
        RandomClassSampler.__iter__(self)
        RandomClassSampler.__len__(self)
        build_sampler(sampler_type, cfg, data_source, batch_size, n_domain, n_ins)
    """,
    "dassl.data.transforms.transforms": """
        AVAI_CHOICES
        INTERPOLATION_MODES
        Random2DTranslation
        Random2DTranslation.__init__(self, height, width, p, interpolation)
        Random2DTranslation.__call__(self, img)
        InstanceNormalization
        InstanceNormalization.__init__(self, eps)
        InstanceNormalization.__call__(self, img)
        Cutout
        Cutout.__init__(self, n_holes, length)
        Cutout.__call__(self, img)
        GaussianNoise
        GaussianNoise.__init__(self, mean, std, p)
        GaussianNoise.__call__(self, img)
        build_transform(cfg, is_train, choices)
        _build_transform_train(cfg, choices, target_size, normalize)
        _build_transform_test(cfg, choices, target_size, normalize)
    """,
    "dassl.engine.build": """
        TRAINER_REGISTRY
        build_trainer(cfg)
    """,
    "dassl.engine.trainer": """
        SimpleNet
        SimpleNet.__init__(self, cfg, model_cfg, num_classes, **kwargs)
        SimpleNet.fdim(self)
        SimpleNet.forward(self, x, return_feature)
        TrainerBase
        TrainerBase.__init__(self)
        TrainerBase.register_model(self, name, model, optim, sched)
        TrainerBase.get_model_names(self, names)
        TrainerBase.save_model(self, epoch, directory, is_best, val_result, model_name)
        TrainerBase.resume_model_if_exist(self, directory)
        TrainerBase.load_model(self, directory, epoch)
        TrainerBase.set_model_mode(self, mode, names)
        TrainerBase.update_lr(self, names)
        TrainerBase.detect_anomaly(self, loss)
        TrainerBase.init_writer(self, log_dir)
        TrainerBase.close_writer(self)
        TrainerBase.write_scalar(self, tag, scalar_value, global_step)
        TrainerBase.train(self, start_epoch, max_epoch)
        TrainerBase.before_train(self)
        TrainerBase.after_train(self)
        TrainerBase.before_epoch(self)
        TrainerBase.after_epoch(self)
        TrainerBase.run_epoch(self)
        TrainerBase.test(self)
        TrainerBase.parse_batch_train(self, batch)
        TrainerBase.parse_batch_test(self, batch)
        TrainerBase.forward_backward(self, batch)
        TrainerBase.model_inference(self, input)
        TrainerBase.model_zero_grad(self, names)
        TrainerBase.model_backward(self, loss)
        TrainerBase.model_update(self, names)
        TrainerBase.model_backward_and_update(self, loss, names)
        SimpleTrainer
        SimpleTrainer.__init__(self, cfg)
        SimpleTrainer.check_cfg(self, cfg)
        SimpleTrainer.build_data_loader(self)
        SimpleTrainer.build_model(self)
        SimpleTrainer.train(self)
        SimpleTrainer.before_train(self)
        SimpleTrainer.after_train(self)
        SimpleTrainer.after_epoch(self)
        SimpleTrainer.test(self, split)
        SimpleTrainer.model_inference(self, input)
        SimpleTrainer.parse_batch_test(self, batch)
        SimpleTrainer.get_current_lr(self, names)
        TrainerXU
        TrainerXU.run_epoch(self)
        TrainerXU.parse_batch_train(self, batch_x, batch_u)
        TrainerX
        TrainerX.run_epoch(self)
        TrainerX.parse_batch_train(self, batch)
    """,
    "dassl.evaluation.build": """
        EVALUATOR_REGISTRY
        build_evaluator(cfg, **kwargs)
    """,
    "dassl.evaluation.evaluator": """
        EvaluatorBase
        EvaluatorBase.__init__(self, cfg)
        EvaluatorBase.reset(self)
        EvaluatorBase.process(self, mo, gt)
        EvaluatorBase.evaluate(self)
        Classification
        Classification.__init__(self, cfg, lab2cname, **kwargs)
        Classification.reset(self)
        Classification.process(self, mo, gt)
        Classification.evaluate(self)
    """,
    "dassl.metrics.accuracy": """
        compute_accuracy(output, target, topk)
    """,
    "dassl.optim.optimizer": """
        AVAI_OPTIMS
        build_optimizer(model, optim_cfg, param_groups)
    """,
    "dassl.optim.lr_scheduler": """
        AVAI_SCHEDS
        _BaseWarmupScheduler
        _BaseWarmupScheduler.__init__(self, optimizer, successor, warmup_epoch, last_epoch, verbose)
        _BaseWarmupScheduler.get_lr(self)
        _BaseWarmupScheduler.step(self, epoch)
        ConstantWarmupScheduler
        ConstantWarmupScheduler.__init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch, verbose)
        ConstantWarmupScheduler.get_lr(self)
        LinearWarmupScheduler
        LinearWarmupScheduler.__init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch, verbose)
        LinearWarmupScheduler.get_lr(self)
        build_lr_scheduler(optimizer, optim_cfg)
    """,
    "dassl.utils.logger": """
        Logger
        Logger.__init__(self, fpath)
        Logger.__del__(self)
        Logger.__enter__(self)
        Logger.__exit__(self, *args)
        Logger.write(self, msg)
        Logger.flush(self)
        Logger.close(self)
        setup_logger(output)
    """,
    "dassl.utils.meters": """
        AverageMeter
        AverageMeter.__init__(self, ema)
        AverageMeter.reset(self)
        AverageMeter.update(self, val, n)
        MetricMeter
        MetricMeter.__init__(self, delimiter)
        MetricMeter.update(self, input_dict)
        MetricMeter.__str__(self)
    """,
    "dassl.utils.registry": """
        Registry
        Registry.__init__(self, name)
        Registry._do_register(self, name, obj, force)
        Registry.register(self, obj, force)
        Registry.get(self, name)
        Registry.registered_names(self)
    """,
    "dassl.utils.tools": """
        mkdir_if_missing(dirname)
        check_isfile(fpath)
        read_json(fpath)
        write_json(obj, fpath)
        set_random_seed(seed)
        download_url(url, dst)
        read_image(path)
        collect_env_info()
        listdir_nohidden(path, sort)
        get_most_similar_str_to_a_from_b(a, b)
        check_availability(requested, available)
        tolist_if_not(x)
    """,
    "dassl.utils.torchtools": """
        save_checkpoint(state, save_dir, is_best, remove_module_from_keys, model_name)
        load_checkpoint(fpath)
        resume_from_checkpoint(fdir, model, optimizer, scheduler)
        adjust_learning_rate(optimizer, base_lr, epoch, stepsize, gamma, linear_decay, final_lr, max_epoch)
        set_bn_to_eval(m)
        open_all_layers(model)
        open_specified_layers(model, open_layers)
        count_num_param(model, params)
        load_pretrained_weights(model, weight_path)
        init_network_weights(model, init_type, gain)
    """,
}

# Names that public plug-ins import, as module.name
IMPORTED = """
    dassl.config.clean_cfg
    dassl.config.get_cfg_default
    dassl.data.DataManager
    dassl.data.DatasetWrapper
    dassl.data.data_manager.DatasetWrapper
    dassl.data.data_manager.build_data_loader
    dassl.data.data_manager.build_transform
    dassl.data.datasets.DATASET_REGISTRY
    dassl.data.datasets.DatasetBase
    dassl.data.datasets.Datum
    dassl.data.datasets.build_dataset
    dassl.data.samplers.RandomClassSampler
    dassl.data.samplers.RandomDomainSampler
    dassl.data.samplers.RandomSampler
    dassl.data.samplers.SeqDomainSampler
    dassl.data.samplers.SequentialSampler
    dassl.data.samplers.build_sampler
    dassl.data.transforms.INTERPOLATION_MODES
    dassl.data.transforms.build_transform
    dassl.data.transforms.transforms.build_transform
    dassl.engine.SimpleTrainer
    dassl.engine.TRAINER_REGISTRY
    dassl.engine.TrainerX
    dassl.engine.build_trainer
    dassl.engine.trainer.AverageMeter
    dassl.engine.trainer.MetricMeter
    dassl.engine.trainer.SummaryWriter
    dassl.engine.trainer.TrainerX
    dassl.evaluation.build_evaluator
    dassl.metrics.compute_accuracy
    dassl.modeling.build_backbone
    dassl.modeling.build_head
    dassl.optim.build_lr_scheduler
    dassl.optim.build_optimizer
    dassl.optim.lr_scheduler.ConstantWarmupScheduler
    dassl.optim.lr_scheduler.LinearWarmupScheduler
    dassl.optim.radam.RAdam
    dassl.utils.AverageMeter
    dassl.utils.MetricMeter
    dassl.utils.Registry
    dassl.utils.check_availability
    dassl.utils.check_isfile
    dassl.utils.collect_env_info
    dassl.utils.count_num_param
    dassl.utils.listdir_nohidden
    dassl.utils.load_checkpoint
    dassl.utils.load_pretrained_weights
    dassl.utils.mkdir_if_missing
    dassl.utils.read_image
    dassl.utils.read_json
    dassl.utils.resume_from_checkpoint
    dassl.utils.save_checkpoint
    dassl.utils.set_random_seed
    dassl.utils.setup_logger
    dassl.utils.tolist_if_not
    dassl.utils.tools.mkdir_if_missing
    dassl.utils.write_json
"""


def resolve(module: str, path: str) -> Any:
    value = importlib.import_module(module)
    for name in path.split("."):
        value = inspect.getattr_static(value, name) if inspect.isclass(value) else getattr(value, name)
    return value


def entries() -> list[tuple[str, str, str | None]]:
    found = []
    for module, text in DEFINED.items():
        for line in filter(None, map(str.strip, text.splitlines())):
            path, _, parameters = line.partition("(")
            found.append((module, path, parameters[:-1] if parameters else None))
    return found


def parameter_names(function: Any) -> list[str]:
    function = inspect.unwrap(getattr(function, "__func__", function))
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("module", "path", "parameters"), entries(), ids=lambda value: str(value))
def test_defined(module: str, path: str, parameters: str | None) -> None:
    value = resolve(module, path)
    if parameters is None or isinstance(value, property):
        return
    expected = [name.strip() for name in parameters.split(",") if name.strip()]
    found = parameter_names(value)
    assert found[: len(expected)] == expected


@pytest.mark.parametrize("name", IMPORTED.split())
def test_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
